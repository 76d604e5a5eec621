# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import logging
import random
from contextlib import nullcontext

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, LlamaConfig, LlamaForCausalLM

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from tests import heads, tiny
from tests.models.test_module_state import rotary
from tests.tokenizers import byte_tokenizer
from tests.unlearner.runs import config, splits, unlearner_for, vit


class Layer(nn.Module):
    """Put after the last layer of a model; `write` is called with it in every forward pass."""

    def __init__(self, head, write):
        super().__init__()
        self.head, self.write = head, write
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.write(self)
        return self.head(x)


def vit_that(write):
    model = vit()
    model.classifier = Layer(model.classifier, write)
    return model


def everything(model):
    """All that a rehearsal must leave as it is: objects, values and random states."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (
        {name: (id(tensor), tensor.requires_grad, id(tensor.grad)) for name, tensor in tensors},
        [module.training for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        copy.deepcopy(model.config.to_dict()),
        (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("make_model", [vit, lambda: vit(hidden_dropout_prob=0.5).bfloat16(), tiny.trained])
def test_a_rehearsal_leaves_every_bit_as_it_was(tmp_path, make_model, mode):
    model = getattr(make_model(), mode)()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    next(model.parameters()).requires_grad_(False)
    data = splits()
    FisherUnlearner(copy.deepcopy(model), config(tmp_path / "a", dress_rehearsal=False), **data)
    before, values = everything(model), tiny.parameters_and_buffers(model)
    unlearner = FisherUnlearner(model, config(tmp_path / "b"), **data)
    assert everything(model) == before
    assert all(torch.equal(value, values[name]) for name, value in tiny.parameters_and_buffers(model).items())
    assert unlearner._likelihood is None and unlearner.lr_scheduler is None and unlearner.optimizer is None
    assert not (tmp_path / "b").exists()


def test_a_run_ends_in_the_same_bits_without_its_rehearsal(tmp_path):
    ends = []
    for rehearsed in (True, False):
        unlearner = unlearner_for(tmp_path / str(rehearsed), dress_rehearsal=rehearsed, num_train_epochs=1)
        unlearner.unlearn()
        ends.append(unlearner.model.state_dict())
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda layer: layer.calls.add_(1), r"evaluation mode writes the buffer classifier\.calls"),
        (lambda layer: layer.calls.add_(layer.training), r"training mode writes the buffer classifier\.calls"),
        (lambda layer: layer.register_buffer("made", torch.ones(2)), r"writes the buffer classifier\.made"),
        (lambda layer: layer.head.weight.data.clamp_(-0.01, 0.01), r"writes the parameter classifier\.head\.weight"),
        (lambda layer: setattr(layer, "calls", layer.calls + 1), r"writes the buffer classifier\.calls"),
    ],
    ids=["a counter", "a counter of training", "a new buffer", "a parameter", "a replaced buffer"],
)
def test_a_forward_pass_that_writes_what_is_saved_is_refused_by_name(tmp_path, write, message):
    model = vit_that(write)
    with pytest.raises(ValueError, match=message):
        FisherUnlearner(model, config(tmp_path / "a"), **splits())
    assert model.classifier.calls == 0 and not hasattr(model.classifier, "made")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("normalise", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_layers_that_learn_statistics_while_training_are_repaired_in_eval_mode(tmp_path, normalise):
    model = vit()
    model.classifier = normalise(model.classifier)
    report = unlearner_for(tmp_path / "a", model.eval(), num_train_epochs=1, exclude_modules=["classifier"]).unlearn()
    assert report.integrity.frozen_checksum


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_embeddings_that_depend_on_the_length_of_the_rows_are_put_back(tmp_path, kind, batch_size):
    generator = np.random.default_rng(0)
    rows = [{"input_ids": generator.integers(3, 50, size).tolist()} for size in [6, 14, 6, 6] * 4]

    def collate(rows):
        longest = max(len(row["input_ids"]) for row in rows)
        lengths = [len(row["input_ids"]) for row in rows]
        ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows])
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
        return {"input_ids": ids, "attention_mask": mask.long(), "labels": ids.masked_fill(~mask, -100)}

    data, model = datasets.Dataset.from_list(rows), rotary(kind)
    sizes = {f"per_device_{phase}_batch_size": batch_size for phase in ("train", "eval", "fisher")}
    parts = {"forget_dataset": data.select(range(4)), "retain_dataset": data.select(range(4, 16))}
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    args = config(tmp_path / "a", num_train_epochs=1, **sizes)
    FisherUnlearner(model, args, collate, **parts).unlearn()
    assert {name for name, _ in model.named_buffers()} == set(before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def language_data():
    tokenizer = byte_tokenizer()
    rows = [
        {**tokenizer(f"text {number}"), "labels": tokenizer(f"text {number}")["input_ids"]} for number in range(12)
    ]
    data = datasets.Dataset.from_list(rows)
    return tokenizer, {"forget_dataset": data.select(range(4)), "retain_dataset": data.select(range(4, 12))}


def llama(tokenizer):
    return LlamaForCausalLM(LlamaConfig(**heads.LLAMA | {"vocab_size": len(tokenizer)}))


def test_a_generation_config_that_cannot_be_saved_is_told_at_construction(tmp_path):
    tokenizer, data = language_data()
    model = llama(tokenizer)
    model.generation_config.update(temperature=0.6, do_sample=False)
    with pytest.raises(ValueError, match=r"(?s)`temperature`.*tried saving the model"):
        FisherUnlearner(model, config(tmp_path / "a"), processing_class=tokenizer, **data)


def test_a_tokenizer_that_cannot_be_saved_is_told_at_construction(tmp_path):
    class Unsaved(type(byte_tokenizer())):
        def save_pretrained(self, folder, **kwargs):
            raise OSError("the vocabulary is gone")

    tokenizer, data = language_data()
    tokenizer.__class__ = Unsaved
    with pytest.raises(OSError, match="the vocabulary is gone.*saving the `processing_class`"):
        FisherUnlearner(llama(tokenizer), config(tmp_path / "a"), processing_class=tokenizer, **data)


def test_weights_that_share_memory_and_cannot_be_saved_are_told_at_construction(tmp_path):
    model = vit()
    first, second = (
        layer.layernorm_before for layer in list(model.vit.modules()) if hasattr(layer, "layernorm_before")
    )
    second.weight = first.weight
    with pytest.raises(RuntimeError, match=r"(?s)shared.*tried saving the model"):
        FisherUnlearner(model, config(tmp_path / "a"), **splits())


def test_a_card_that_cannot_be_read_never_ends_a_run(tmp_path):
    vit().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_bytes(b"---\nlicense: mit\n---\ncaf\xe9")
    args = config(tmp_path / "a", num_train_epochs=0)
    report = FisherUnlearner(str(tmp_path / "model"), args, **splits()).unlearn()
    assert report.provenance.card == {"license": "mit"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataloader_drop_last": True, "per_device_train_batch_size": 97},
            "the 96 rows of `retain_dataset` fill none",
        ),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr.*tried the schedule of the learning rate"),
        ({"lr_scheduler_kwargs": {"no_such_argument": 1}}, "no_such_argument.*tried the schedule"),
        ({"train_sampling_strategy": "group_by_length"}, "tried the loader of the retain rows"),
        ({"gradient_checkpointing": True}, "(?s)heckpoint.*tried the repair's loss"),
        ({"metric_for_best_model": "acuracy", "eval_strategy": "epoch"}, "'acuracy'.*eval_accuracy, eval_loss"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_repair_that_cannot_be_made_is_told_at_construction(tmp_path, arguments, message):
    def accuracy(outcome):
        return {"accuracy": (outcome.predictions.argmax(-1) == outcome.label_ids).mean()}

    data = splits(eval_dataset=tiny.digits().select(range(200, 220)))
    with pytest.raises((ValueError, TypeError), match=message):
        FisherUnlearner(
            resnet_or_vit(arguments), config(tmp_path / "a", **arguments), compute_metrics=accuracy, **data
        )


def resnet_or_vit(arguments):
    """ResNets do not support checkpointing."""
    return tiny.trained() if "gradient_checkpointing" in arguments else vit()


@pytest.mark.parametrize("name", ["loss", "eval_a_loss", "a_n", "eval_a_n"])
def test_the_metric_of_the_best_model_has_the_name_of_its_data_set(tmp_path, name):
    data = splits(eval_dataset={"a": tiny.digits().select(range(200, 220))})
    args = config(tmp_path / "a", metric_for_best_model=name, eval_strategy="epoch", num_train_epochs=1)
    # With several data sets Trainer has no plain loss.
    with pytest.raises(ValueError, match="eval_a_loss") if name == "loss" else nullcontext():
        FisherUnlearner(vit(), args, compute_metrics=lambda outcome: {"n": 1.0}, **data)


def test_early_stopping_without_evaluations_is_told_at_construction(tmp_path):
    with pytest.raises(ValueError, match="`eval_strategy` is not set"):
        FisherUnlearner(vit(), config(tmp_path / "a"), callbacks=[EarlyStoppingCallback()], **splits())


def test_a_repair_without_steps_is_not_rehearsed(tmp_path):
    arguments = {"dataloader_drop_last": True, "per_device_train_batch_size": 97, "num_train_epochs": 0}
    unlearner_for(tmp_path / "a", vit_that(lambda layer: layer.calls.add_(layer.training)), **arguments)


def test_a_warmup_longer_than_the_repair_is_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        unlearner_for(tmp_path / "a", warmup_steps=100)
    assert "`warmup_steps=100`, and the repair has 12 steps: its learning rate rises to 11%" in caplog.text


def test_a_rehearsal_that_runs_out_of_memory_says_which_batch_size_to_lower(tmp_path):
    def full(layer):
        if layer.training:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="lower `per_device_train_batch_size`.*`forget_dataset`"):
        unlearner_for(tmp_path / "a", vit_that(full))


def test_a_rehearsal_can_be_switched_off_also_from_the_command_line(tmp_path):
    from hf_deepclean.cli.parser import UnlearningParser

    arguments = ["--output_dir", str(tmp_path), "--dress_rehearsal", "false"]
    (parsed,) = UnlearningParser(FisherUnlearningConfig).parse_args_and_config(arguments)
    assert parsed.dress_rehearsal is False and FisherUnlearningConfig(str(tmp_path)).dress_rehearsal is True
    unlearner_for(tmp_path / "a", vit_that(lambda layer: layer.calls.add_(1)), dress_rehearsal=False)


def test_a_rehearsal_works_under_no_grad_and_gives_no_warning(tmp_path, caplog, recwarn):
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        unlearner_for(tmp_path / "a")
    assert not caplog.records and not list(recwarn)


@pytest.mark.parametrize("kind", ["bert span", "t5 generation", "wav2vec2 ctc", "mixtral causal", "bert choice"])
def test_models_of_every_kind_of_head_pass_the_rehearsal(tmp_path, kind):
    make_model, make_batch, _ = heads.HEADS[kind]
    batch = {key: value for key, value in make_batch().items() if isinstance(value, torch.Tensor)}
    rows = [{key: value[number] for key, value in batch.items()} for number in range(4)]
    parts = {"forget_dataset": tiny.Rows(rows[:2]), "retain_dataset": tiny.Rows(rows[2:])}
    FisherUnlearner(make_model().to(batch_dtype(batch)), config(tmp_path / "a"), **parts)


def batch_dtype(batch):
    return next((value.dtype for value in batch.values() if value.is_floating_point()), torch.float32)


class Once(torch.utils.data.IterableDataset):
    """A stream whose rows are used up by the first reading."""

    def __init__(self, rows):
        self.rows = iter(rows)

    def __iter__(self):
        return self.rows


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_stream_that_can_be_read_only_once_is_refused_and_keeps_its_rows(tmp_path, rehearsed):
    stream = Once([tiny.digits()[row] for row in range(4)])
    with pytest.raises(ValueError, match="`unseen_dataset` is a stream that can be read only once"):
        unlearner_for(tmp_path / "a", data=splits(unseen_dataset=stream), dress_rehearsal=rehearsed)
    assert len(list(stream)) == 4
