# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from functools import cache

import numpy as np
import pytest
import torch
from transformers import (
    Trainer,
    TrainingArguments,
    ViTForImageClassification,
    default_data_collator,
)

from hf_deepclean import (
    FisherCallback,
    FisherDiagonal,
    FisherUnlearner,
    accumulate_fisher_diagonal,
    classification_log_likelihood,
    parameters_in_scope,
    select_weights,
)
from hf_deepclean.selection.subtraction import cancellation_error
from tests import tiny


TRAIN = range(120)


def trainer_for(directory, model=None, dataset=None, **kwargs):
    torch.manual_seed(0)
    objects = {name: kwargs.pop(name) for name in ("compute_loss_func", "data_collator") if name in kwargs}
    defaults = {
        "num_train_epochs": 1,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 16,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    digits = tiny.digits()
    return Trainer(
        model or tiny.vit(num_labels=10, hidden_dropout_prob=0.1),
        TrainingArguments(str(directory), **(defaults | kwargs)),
        train_dataset=digits.select(TRAIN) if dataset is None else dataset,
        eval_dataset=digits.select(range(120, 150)),
        **objects,
    )


def batches(rows, size=32):
    chosen = tiny.digits().select(rows)
    parts = (chosen.select(range(start, min(start + size, len(chosen)))) for start in range(0, len(chosen), size))
    return (default_data_collator(list(part)) for part in parts)


def assert_equal(fisher, other):
    assert fisher.num_examples == other.num_examples
    assert fisher.sums.keys() == other.sums.keys()
    for name, total in other.sums.items():
        assert torch.equal(fisher.sums[name], total), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True, "use_cpu": True},
        {"gradient_checkpointing": True, "gradient_accumulation_steps": 2, "dataloader_drop_last": True},
        {
            "load_best_model_at_end": True,
            "num_train_epochs": 2,
            "save_strategy": "epoch",
            "eval_strategy": "epoch",
            "greater_is_better": True,
        },
        {"label_smoothing_factor": 0.1},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_the_kept_fisher_is_that_of_all_training_data_at_the_final_weights(tmp_path, settings):
    trainer = trainer_for(tmp_path, **settings)
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    kept = FisherDiagonal.from_pretrained(tmp_path / "_fisher")
    trainer.save_model()
    model = ViTForImageClassification.from_pretrained(tmp_path)
    kept.check_fits(model, parameters_in_scope(model), "empirical")
    assert kept.num_examples == len(TRAIN) and kept.seconds > 0
    assert_equal(kept, accumulate_fisher_diagonal(model, batches(TRAIN)))


def test_a_training_with_the_callback_ends_in_the_same_bits_and_goes_on_in_its_precision(tmp_path):
    ends = []
    for name in ("without", "with"):
        trainer = trainer_for(tmp_path / name, bf16=True, use_cpu=True)
        if name == "with":
            trainer.add_callback(FisherCallback(trainer))
        trainer.train()
        ends.append((trainer.model.state_dict(), trainer.evaluate()["eval_loss"], torch.rand(1)))
    (weights, loss, draw), (other_weights, other_loss, other_draw) = ends
    assert loss == other_loss and draw == other_draw
    assert all(torch.equal(weights[name], value) for name, value in other_weights.items())


@pytest.mark.parametrize("rule", [{"gamma": 1.0}, {"reset_fraction": 0.3}, {}], ids=["gamma", "fraction", "adaptive"])
@pytest.mark.parametrize("request_kind", ["one", "tenth", "class"])
def test_a_request_by_subtraction_selects_what_a_pass_over_the_rest_selects(kept_digits, passes, rule, request_kind):
    kept = kept_digits[1]
    forget_fisher, retain_fisher = passes(request_kind)
    difference = kept - forget_fisher
    assert difference.num_examples == retain_fisher.num_examples
    selected, expected = (select_weights(forget_fisher, retain, **rule) for retain in (difference, retain_fisher))
    nothing = torch.empty(0, dtype=torch.long)
    different = sum(
        np.setxor1d(selected.indices.get(name, nothing), expected.indices.get(name, nothing)).size
        for name in forget_fisher.sums
    )
    assert different <= 0.001 * selected.num_in_scope
    error = cancellation_error(kept, forget_fisher, selected)
    assert error.num_undecided <= 0.001 * error.num_selected and not error.matters


@pytest.fixture(scope="module")
def kept_digits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kept")
    trainer = trainer_for(directory, num_train_epochs=2)
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    return trainer.model, FisherDiagonal.from_pretrained(directory / "_fisher")


@pytest.fixture(scope="module")
def passes(kept_digits):
    """The forget and the retain Fisher of a request, each from a pass of its own, made once."""
    model = kept_digits[0]
    labels = np.asarray(tiny.digits()["labels"])[: len(TRAIN)]
    requests = {"one": [0], "tenth": range(12), "class": np.flatnonzero(labels == 3)}

    @cache
    def of_request(kind):
        forget = requests[kind]
        return [accumulate_fisher_diagonal(model, batches(rows)) for rows in (forget, np.setdiff1d(TRAIN, forget))]

    return of_request


def test_after_a_weight_changes_the_kept_fisher_is_stale_and_says_what_a_refresh_costs(kept_digits):
    model, kept = kept_digits
    scope = parameters_in_scope(model)
    kept.check_fits(model, scope, "empirical")
    bias = model.classifier.bias.detach()
    bias[0] += 1
    with pytest.raises(ValueError, match=r"stale.*one pass over 120 examples, which took .* seconds"):
        kept.check_fits(model, scope, "empirical")
    bias[0] -= 1


def test_a_stream_is_read_to_its_end_once(tmp_path):
    stream = tiny.digits().select(TRAIN).to_iterable_dataset(num_shards=2)
    trainer = trainer_for(tmp_path, dataset=stream, max_steps=3)
    trainer.add_callback(FisherCallback(trainer, tmp_path / "elsewhere" / "kept"))
    trainer.train()
    kept = FisherDiagonal.from_pretrained(tmp_path / "elsewhere" / "kept")
    assert_equal(kept, accumulate_fisher_diagonal(trainer.model, batches(TRAIN)))


def test_the_scope_and_the_estimator_are_those_asked_for(tmp_path):
    trainer = trainer_for(tmp_path)
    callback = FisherCallback(
        trainer, fisher_type="expected", target_modules=["classifier"], per_device_fisher_batch_size=7
    )
    trainer.add_callback(callback)
    trainer.train()
    kept = FisherDiagonal.from_pretrained(tmp_path / "_fisher")
    assert (set(kept.sums), kept.fisher_type) == ({"classifier.weight", "classifier.bias"}, "expected")


def test_of_an_adapter_only_the_adapter_is_kept(tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        tiny.vit(num_labels=10), peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    trainer = trainer_for(tmp_path, model, label_names=["labels"], remove_unused_columns=False)
    trainer.add_callback(FisherCallback(trainer, reset_scope="adapter"))
    trainer.train()
    kept = FisherDiagonal.from_pretrained(tmp_path / "_fisher")
    assert kept.is_fresh(model) and all("lora" in name for name in kept.sums)


def refused(trainer, match, error=ValueError, **kwargs):
    trainer.add_callback(FisherCallback(trainer, **kwargs))
    with pytest.raises(error, match=match):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_fisher_that_is_there_stays_as_it_is_and_stops_the_training_before_its_first_step(tmp_path):
    there = tmp_path / "_fisher" / "fisher.safetensors"
    there.parent.mkdir()
    there.write_bytes(b"mine")
    refused(trainer_for(tmp_path), "Nothing is ever overwritten", FileExistsError)
    assert there.read_bytes() == b"mine"


def test_a_loss_of_the_caller_needs_its_likelihood(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits, labels)

    refused(trainer_for(tmp_path, compute_loss_func=loss), "compute_loss_func")
    trainer = trainer_for(tmp_path, compute_loss_func=loss)
    trainer.add_callback(FisherCallback(trainer, log_likelihood_func=classification_log_likelihood))
    trainer.train()
    assert FisherDiagonal.from_pretrained(tmp_path / "_fisher").num_examples == len(TRAIN)


def test_what_cannot_be_computed_at_the_end_is_refused_at_the_beginning(tmp_path):
    digits = tiny.digits().select(TRAIN)
    refused(trainer_for(tmp_path, tiny.vit(num_labels=3)), "outside the head's range")
    refused(trainer_for(tmp_path), "matches no module", target_modules=["nothing"])
    refused(trainer_for(tmp_path, dataset=digits.remove_columns("labels")), "no labels")
    with pytest.raises(ValueError, match="draws labels anew"):
        FisherCallback(trainer_for(tmp_path), fisher_type="sampled")


def test_random_batches_are_refused_since_nothing_could_be_subtracted(tmp_path):
    def augmented(rows):
        batch = default_data_collator(rows)
        return batch | {"pixel_values": batch["pixel_values"] + 0.1 * torch.randn(1)}

    refused(trainer_for(tmp_path, data_collator=augmented), "draws at random")


def test_a_folder_that_a_push_would_publish_is_refused(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path)
    monkeypatch.setattr(trainer.args, "push_to_hub", True)
    monkeypatch.setattr(trainer, "init_hf_repo", lambda *args, **kwargs: None)
    refused(trainer, "would publish", directory=tmp_path / "kept")


def test_an_unlearner_made_from_the_trainer_does_not_run_it(tmp_path):
    digits = tiny.digits()
    trainer = trainer_for(tmp_path / "model", dataset=digits.select(range(48)))
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    unlearner = FisherUnlearner.from_trainer(
        trainer,
        forget_dataset=digits.select(range(12)),
        retain_dataset=digits.select(range(12, 48)),
        reset_fraction=0.1,
        num_train_epochs=1,
    )
    unlearner.unlearn()
    assert not FisherDiagonal.from_pretrained(tmp_path / "model" / "_fisher").is_fresh(trainer.model)
