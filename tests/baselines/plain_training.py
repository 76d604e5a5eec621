# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Small unlearning requests and the plain training loop that the baselines that train are compared with."""

import torch
from torch.utils.data import default_collate

from hf_deepclean import UnlearningData
from tests import heads, tiny


def rows_of(batch):
    size = len(next(iter(batch.values())))
    return tiny.Rows([{key: value[index] for key, value in batch.items()} for index in range(size)])


def data_of(forget, retain, collator=default_collate, log_likelihood_func=None):
    return UnlearningData(rows_of(forget), rows_of(retain), collator, log_likelihood_func)


def images(num_forget=5, num_retain=11, dtype=torch.float64):
    batch = tiny.image_batch(num_forget + num_retain, dtype)
    parts = ({k: v[:num_forget] for k, v in batch.items()}, {k: v[num_forget:] for k, v in batch.items()})
    return data_of(*parts)


def texts(labels="next"):
    return data_of(heads.text(labels), heads.text(labels, (5, 6, 4, 7)))


def assert_close(model, reference):
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12), name


def train_plainly(model, optimizer, losses, learning_rates=None, max_grad_norm=None):
    """The textbook training loop. Each of the `losses` is a function of the model."""
    for step, loss in enumerate(losses):
        optimizer.zero_grad()
        loss(model).backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        if learning_rates is not None:
            optimizer.param_groups[0]["lr"] = learning_rates[step]
        optimizer.step()


def taken(batches, num_steps):
    return [next(batches) for _ in range(num_steps)]
