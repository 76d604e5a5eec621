# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A run is continued with what it was started with, or what differs is named."""

import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from transformers import DefaultDataCollator, TrainerCallback

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig, weights_fingerprint
from hf_deepclean.state.identity import check_same_run, identity_of_run
from tests import tiny
from tests.state.damages import stop_in, unlearner_for
from tests.state.own_functions import Rate


class Stops(TrainerCallback):
    """Ends the repair early."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= 3


def plus(amount):
    """A transform of rows, as `set_transform` takes it."""

    def transform(rows):
        images = torch.tensor(np.asarray(rows["pixel_values"]), dtype=torch.float32) + amount
        return {"pixel_values": list(images), "labels": rows["labels"]}

    return transform


def accuracy(prediction):
    return {"own accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def collate(rows):
    return DefaultDataCollator()(rows)


def unlearner(folder, *, change=None, **kwargs):
    """An unlearner with everything that has a fingerprint."""
    torch.manual_seed(0)
    digits = tiny.digits().with_format(None)
    model = tiny.randomized(tiny.vit(num_labels=10, num_hidden_layers=1, hidden_dropout_prob=0.1), torch.float32)
    data = {
        "forget_dataset": digits.select(range(12)).with_transform(plus(0)),
        "retain_dataset": digits.select(range(12, 60)).with_transform(plus(0)),
        "unseen_dataset": digits.select(range(60, 72)).with_transform(plus(0)),
        "eval_dataset": digits.select(range(72, 84)).with_transform(plus(0)),
    }
    arguments = {
        "data_collator": collate,
        "compute_metrics": accuracy,
        "preprocess_logits_for_metrics": lambda logits, labels: logits,
        "callbacks": [Rate(3)],
    }
    args = FisherUnlearningConfig(
        str(folder), reset_fraction=0.2, num_train_epochs=1, learning_rate=1e-2, use_cpu=True, report_to="none",
        disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    made = FisherUnlearner(model, args, **(data | arguments | kwargs))
    if change is not None:
        change(made)
    return made


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that failed in its reset."""
    folder = tmp_path_factory.mktemp("stopped") / "clean"
    failing = unlearner(folder)

    def fail(*args, **kwargs):
        raise InterruptedError

    failing.train = fail
    with pytest.raises(InterruptedError):
        failing.unlearn()
    return folder


def with_dropout(value):
    def change(made):
        for module in made.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = value

    return change


def set_attention(made):
    made.model.config._attn_implementation = "eager"


def freeze_the_classifier(made):
    made.model.classifier.requires_grad_(False)


def scale_by(factor):
    """A change of a model's code: of the class of its head, or of a hook on it."""

    class Scaled(torch.nn.Linear):
        def forward(self, states):
            return factor * super().forward(states)

    def of_class(made):
        made.model.classifier.__class__ = Scaled

    def of_hook(made):
        made.model.classifier.register_forward_hook(lambda module, inputs, output: factor * output)

    return of_class, of_hook


class OtherUnlearner(FisherUnlearner):
    def compute_loss(self, model, inputs, *args, **kwargs):
        return super().compute_loss(model, inputs, *args, **kwargs)


DIGITS = tiny.digits().with_format(None)

DIFFERENT = {
    "another data_collator": {"data_collator": lambda rows: collate(rows)},
    "another compute_metrics": {"compute_metrics": lambda prediction: accuracy(prediction)},
    "another preprocess_logits_for_metrics": {"preprocess_logits_for_metrics": lambda logits, labels: logits + 0},
    "another transform of retain_dataset": {
        "retain_dataset": DIGITS.select(range(12, 60)).with_transform(plus(0.5)),
    },
    "another transform of unseen_dataset": {
        "unseen_dataset": DIGITS.select(range(60, 72)).with_transform(lambda x: x)
    },
    "another eval_dataset": {"eval_dataset": DIGITS.select(range(73, 85)).with_transform(plus(0))},
    "another unseen_dataset": {"unseen_dataset": DIGITS.select(range(61, 73)).with_transform(plus(0))},
    "another callback Rate": {"callbacks": [Rate(4)]},
    "the callback Rate was there, and now is not": {"callbacks": []},
    "the callback Stops was not there": {"callbacks": [Rate(3), Stops()]},
    "settings of the model: Dropout.p .*0.1 .*now .*0.3": {"change": with_dropout(0.3)},
    "settings of the model: attention implementation 'sdpa', now 'eager'": {"change": set_attention},
    "settings of the model: trainable weights": {"change": freeze_the_classifier},
}


@pytest.mark.parametrize("message", DIFFERENT)
def test_a_run_that_is_resumed_with_something_else_is_refused_by_its_name(stopped, message):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"is the state of another run: .*{message}"):
        unlearner(stopped, **DIFFERENT[message]).unlearn(resume_from_checkpoint=True)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", [0, 1])
def test_another_code_of_the_model_is_another_run(tmp_path, place):
    plain, twice, again, thrice = (
        identity_of_run(made.request, made.args, made)
        for made in (
            unlearner(tmp_path / "a", change=None if factor is None else scale_by(factor)[place])
            for factor in (None, 2, 2, 3)
        )
    )
    assert twice == again
    with pytest.raises(ValueError, match=r"another code of the model \((Scaled|hooks of classifier)\)"):
        check_same_run(tmp_path, twice, thrice)
    with pytest.raises(ValueError, match=r"the code of the model \(.*(Scaled|classifier)\) was not there, and now is"):
        check_same_run(tmp_path, plain, twice)


def test_another_number_of_threads_and_other_settings_of_torch_are_refused(stopped):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(ValueError, match=f"settings of torch: num_threads '{threads}', now '{threads + 1}'"):
            unlearner(stopped).unlearn(resume_from_checkpoint=True)
    finally:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(ValueError, match="deterministic algorithms 'False', now 'True'"):
            unlearner(stopped).unlearn(resume_from_checkpoint=True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_subclass_that_trains_in_another_way_is_refused(stopped):
    args = unlearner(stopped).args
    data = {name: getattr(unlearner(stopped), f"{name}_dataset") for name in ("forget", "retain", "unseen", "eval")}
    other = OtherUnlearner(
        unlearner(stopped).model, args, collate, **{f"{name}_dataset": rows for name, rows in data.items()},
        compute_metrics=accuracy, log_likelihood_func=lambda outputs, labels: -outputs.logits[:, 0],
    )  # fmt: skip
    with pytest.raises(ValueError, match="another class of the trainer; another log_likelihood_func"):
        other.unlearn(resume_from_checkpoint=True)


def test_the_same_things_made_again_continue_the_run_and_what_is_not_compared_is_said(stopped, tmp_path, caplog):
    copied = shutil.copytree(stopped, tmp_path / "clean")
    unlearner(copied).unlearn(resume_from_checkpoint=True)
    [said] = [message for message in caplog.messages if message.startswith("Continuing the run")]
    assert said.endswith(
        "must be the same for the same result: what the callback Rate has noted until the interruption."
    )
    assert (copied / "report.json").exists()


def test_another_kept_fisher_of_the_same_size_is_refused(tmp_path):
    made = unlearner_for(tmp_path / "unused")
    rows = datasets.concatenate_datasets([made.forget_dataset, made.retain_dataset])
    kept = replace(made.compute_fisher(rows), weights_fingerprint=weights_fingerprint(made.model))
    other = replace(kept, sums={name: 2 * total for name, total in kept.sums.items()})
    stop_in(tmp_path / "clean", "repair", kept_fisher=kept)
    with pytest.raises(ValueError, match="another kept_fisher_sums"):
        unlearner_for(tmp_path / "clean", kept_fisher=other).unlearn(resume_from_checkpoint=True)


def test_of_streams_the_first_rows_are_compared_and_that_is_said(tmp_path):
    made = unlearner_for(tmp_path / "clean", max_steps=2)
    made.retain_dataset = made.retain_dataset.to_iterable_dataset()
    identity = identity_of_run(made.request, made.args, made)
    assert identity["not compared"] == ["rows of the stream retain_dataset after the first, and its transforms"]
