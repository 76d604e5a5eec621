# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import random
from dataclasses import fields, replace

import datasets
import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling, GPT2Config, GPT2LMHeadModel

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig, WeightSelection
from hf_deepclean.planning.preview import TimedCollator
from tests import tiny
from tests.tokenizers import byte_tokenizer


# transformers renamed this option.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {item.name for item in fields(FisherUnlearningConfig)}
)


def image_unlearner(output, model=None, num_forget=20, num_retain=60, **arguments):
    digits = tiny.digits()
    return FisherUnlearner(
        tiny.vit(num_labels=10) if model is None else model,
        FisherUnlearningConfig(
            str(output),
            **{
                "reset_fraction": 0.1,
                "per_device_fisher_batch_size": 10,
                "per_device_train_batch_size": 20,
                "per_device_eval_batch_size": 20,
                "num_train_epochs": 1,
                "logging_strategy": "no",
                "disable_tqdm": True,
            }
            | arguments,
        ),
        forget_dataset=digits.select(range(num_forget)),
        retain_dataset=digits.select(range(num_forget, num_forget + num_retain)),
        unseen_dataset=digits.select(range(1780, 1797)),
    )


def text_unlearner(output, **arguments):
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=None)
    )
    rows = datasets.Dataset.from_dict({"input_ids": [[number % 200 + 2, 5, 6, 7] for number in range(120)]})
    return FisherUnlearner(
        model,
        FisherUnlearningConfig(str(output), reset_fraction=0.1, disable_tqdm=True, **arguments),
        DataCollatorForLanguageModeling(byte_tokenizer(), mlm=False),
        forget_dataset=rows.select(range(30)),
        retain_dataset=rows.select(range(30, 120)),
    )


def state_of(unlearner):
    """Everything that a preview must leave as it was."""
    model = unlearner.model
    return {
        "tensors": {name: value.clone() for name, value in tiny.parameters_and_buffers(model).items()},
        "gradients": {name: p.grad for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "checkpointing": {
            name: getattr(module, "gradient_checkpointing", None) for name, module in model.named_modules()
        },
        "training": {name: module.training for name, module in model.named_modules()},
        "config": model.config.to_dict(),
        "args": unlearner.args.to_dict(),
        "random": (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()),
        "attributes": {name: value for name, value in vars(unlearner).items() if name not in ("model", "args")},
    }


def assert_equal(before, after, where=""):
    assert type(before) is type(after), where
    if isinstance(before, torch.Tensor):
        assert torch.equal(before, after), where
    elif isinstance(before, dict):
        assert before.keys() == after.keys(), where
        for key in before:
            assert_equal(before[key], after[key], f"{where} {key}")
    elif isinstance(before, (tuple, list)):
        assert len(before) == len(after), where
        for position, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_equal(one, other, f"{where} {position}")
    else:
        assert before is after or before == after, where


MODELS = {
    "vit": lambda output: image_unlearner(
        output, random_mask_control=True, gamma_sweep=[1.0], relearning_steps=3, quantization_bits=[4]
    ),
    "resnet, with running statistics": lambda output: image_unlearner(output, tiny.resnet(10)),
    "init": lambda output: image_unlearner(output, reset_value="init", gradient_accumulation_steps=3),
    "selected by trials": lambda output: image_unlearner(
        output, tiny.trained().train(), reset_fraction=None, num_selection_trials=2, gamma_sweep=[1.0]
    ),
    "bf16": lambda output: image_unlearner(output, bf16=True, use_cpu=True),
    "language model with dropout": text_unlearner,
    "checkpointed": lambda output: text_unlearner(output, **{CHECKPOINTING: True}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_preview_leaves_everything_as_it_was_and_writes_nothing(tmp_path, kind):
    unlearner = MODELS[kind](tmp_path / "deep" / "out")
    # A state that differs from the defaults.
    torch.manual_seed(7)
    unlearner.model.train()
    last = list(unlearner.model.parameters())[-1]
    last.grad = torch.ones_like(last)
    next(unlearner.model.parameters()).requires_grad_(False)
    before = state_of(unlearner)
    preview = unlearner.preview(20)
    assert_equal(before, state_of(unlearner))
    assert not list(tmp_path.iterdir())
    assert 0 < preview.selection.num_selected < preview.selection.num_in_scope
    assert all(value >= 0 for value in preview.seconds.values())
    assert ("control" in preview.seconds) == unlearner.args.random_mask_control
    assert ("gamma sweep" in preview.seconds) == (unlearner.args.gamma_sweep is not None)
    assert ("relearning" in preview.seconds) == (unlearner.args.relearning_steps > 0)
    assert ("quantization" in preview.seconds) == (unlearner.args.quantization_bits is not None)


def test_the_run_after_a_preview_is_the_run_without_one(tmp_path):
    def run(output, with_preview):
        torch.manual_seed(0)
        unlearner = image_unlearner(output, learning_rate=1e-3)
        if with_preview:
            unlearner.preview(20)
        unlearner.unlearn()
        return tiny.parameters_and_buffers(unlearner.model)

    assert_equal(run(tmp_path / "a", False), run(tmp_path / "b", True))


def test_a_preview_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch):
    unlearner = image_unlearner(tmp_path / "out")
    before = state_of(unlearner)

    def fail(*args):
        raise ValueError("broken")

    monkeypatch.setattr("hf_deepclean.repair.optimizer.SparseAdamW.step", fail)
    with pytest.raises(ValueError, match="broken"):
        unlearner.preview(20)
    assert_equal(before, state_of(unlearner))


def test_a_preview_of_all_the_data_shows_what_is_then_reset(tmp_path):
    unlearner = image_unlearner(tmp_path / "out")
    preview = unlearner.preview(10_000)
    assert preview.num_sampled == {"forget": 20, "retain": 60}
    report = unlearner.unlearn()
    assert preview.selection == replace(report.selection, plane=None)
    assert preview.fisher_bytes == 2 * 4 * preview.selection.num_in_scope
    # Per weight two floats and an index of 64 bits, and per parameter a step number.
    held = 16 * preview.selection.num_selected
    assert held <= preview.optimizer_bytes <= held + 4 * len(list(unlearner.model.parameters()))


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_train_epochs": 2},
        {"num_train_epochs": 1.5, "gradient_accumulation_steps": 2},
        {"max_steps": 2},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 25},
        {"num_train_epochs": 0},
    ],
)
def test_the_steps_of_the_repair_are_those_that_it_takes(tmp_path, arguments):
    unlearner = image_unlearner(tmp_path / "out", **arguments)
    preview = unlearner.preview(10)
    unlearner.reset_weights(
        WeightSelection({"classifier.weight": torch.arange(9)}, {"classifier.weight": 160}, "gamma")
    )
    unlearner.train()
    assert preview.num_repair_steps == unlearner.state.global_step


def test_estimates_grow_with_the_data(tmp_path):
    small = image_unlearner(tmp_path / "a").preview(20)
    large = image_unlearner(tmp_path / "b", num_retain=1600).preview(20)
    assert (small.num_repair_steps, large.num_repair_steps) == (3, 80)
    assert large.seconds["repair"] > 4 * small.seconds["repair"]
    assert large.seconds["retain Fisher"] > 2 * small.seconds["retain Fisher"]
    assert large.seconds["evaluation"] > 2 * small.seconds["evaluation"]
    capped = image_unlearner(tmp_path / "c", num_retain=1600, fisher_max_examples=20).preview(20)
    assert capped.seconds["retain Fisher"] < large.seconds["retain Fisher"] / 2


def test_time_is_extrapolated_from_the_batches_after_the_first(monkeypatch):
    now = iter([0.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    timer = TimedCollator(lambda rows: {})
    for size in (10, 10, 20):
        timer([0] * size)
    # A tenth of a second per example, and four additional seconds of the first batch.
    assert timer.seconds(1000) == pytest.approx(104)
    assert timer.starts == []


def test_a_random_collator_goes_on_where_it_was():
    collator = DataCollatorForLanguageModeling(byte_tokenizer(mask_token="<eos>"), mlm_probability=0.5, seed=3)
    rows = [{"input_ids": list(range(2, 30))}] * 4
    collator(rows)
    state = collator.generator.get_state()
    TimedCollator(collator)(rows)
    assert torch.equal(collator.generator.get_state(), state)


def test_the_table_says_that_it_estimates(tmp_path):
    text = str(image_unlearner(tmp_path / "out").preview(20))
    assert text.startswith("Dry run of ViTForImageClassification: nothing was changed or written.")
    assert "an estimate from 20 forget examples and 20 retain examples" in text
    assert "Estimated seconds: " in text
    assert "classifier" in text
    assert "MiB" in text


def test_a_used_output_directory_is_refused_before_any_work(tmp_path):
    unlearner = image_unlearner(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").touch()
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        unlearner.preview()
