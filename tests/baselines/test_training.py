# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import default_collate

from hf_deepclean import (
    FineTuning,
    FreezeGuard,
    NegGradPlus,
    RandomLabels,
    RandomMask,
    SalUn,
    UnlearningData,
)
from hf_deepclean.baselines.training import BatchLoss, SparseSGD, TrainingMethod, shuffled_batches
from tests import heads, tiny
from tests.baselines.plain_training import assert_close, data_of, images, taken, texts, train_plainly
from tests.reset.models import selection_of


METHODS = [FineTuning, NegGradPlus, RandomLabels, SalUn, RandomMask]


@pytest.mark.parametrize(
    ("optimizer", "schedule", "weight_decay"),
    [("sgd", "constant", 0.1), ("sgd", "cosine", 0.0), ("adamw", "cosine", 0.1)],
)
def test_every_step_is_one_of_the_textbook_optimizer(optimizer, schedule, weight_decay):
    model, data = tiny.randomized(tiny.vit()), images()
    method = FineTuning(0.03, 2.5, 4, optimizer, weight_decay, schedule)
    reference, batches = copy.deepcopy(model), taken(shuffled_batches(data, "retain", method, 3), 8)
    rates = [0.03 * (1 + math.cos(math.pi * step / 8)) / 2 if schedule == "cosine" else 0.03 for step in range(8)]
    losses = [lambda model, batch=batch: model(**batch).loss for batch in batches]
    if optimizer == "sgd":
        theirs = torch.optim.SGD(reference.parameters(), lr=0.03, momentum=0.9, weight_decay=weight_decay)
        train_plainly(reference, theirs, losses, rates)
    else:
        theirs = torch.optim.AdamW(reference.parameters(), lr=0.03, weight_decay=weight_decay)
        train_plainly(reference, theirs, losses, rates, max_grad_norm=1.0)
    method.unlearn(model, data, seed=3)
    assert_close(model, reference)


@pytest.mark.parametrize(("epochs", "num_steps"), [(0, 0), (0.1, 1), (1, 3), (1.5, 5), (2, 6)])
def test_a_part_of_an_epoch_is_rounded_up_to_whole_steps(epochs, num_steps):
    assert TrainingMethod(num_train_epochs=epochs, per_device_train_batch_size=4).num_steps(11) == num_steps
    assert TrainingMethod(num_train_epochs=epochs).num_steps(0) == 0


def test_a_pass_has_every_example_once_and_every_pass_its_own_order():
    data = data_of({"labels": torch.arange(2)}, {"labels": torch.arange(11)})
    batches = shuffled_batches(data, "retain", TrainingMethod(per_device_train_batch_size=4), 0)
    first, second = (torch.cat([batch["labels"] for batch in taken(batches, 3)]) for _ in range(2))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(11))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    "name", ["vit", "bert tokens", "gpt2 causal", "bert masked", "t5 generation", "bert choice", "bert causal"]
)
def test_the_mean_loss_is_the_one_that_the_model_is_trained_on(name):
    make_model, make_batch, _ = heads.HEADS[name]
    model, batch = tiny.randomized(make_model()), make_batch()
    with torch.no_grad():
        ours = BatchLoss(model, UnlearningData([], [], default_collate)).mean(batch)
        assert ours.item() == pytest.approx(model(**batch).loss.item(), rel=1e-6)


def test_the_sum_is_that_of_the_examples_and_of_their_tokens():
    model, batch = tiny.randomized(heads.gpt2()), heads.text("next")
    num_scored = (batch["labels"][:, 1:] != -100).sum()
    with torch.no_grad():
        total = BatchLoss(model, UnlearningData([], [], default_collate)).sum(batch)
        assert total.item() == pytest.approx((model(**batch).loss * num_scored).item(), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_bits_and_another_one_others(method):
    model, data = tiny.randomized(tiny.vit(hidden_dropout_prob=0.2), torch.float32), images(dtype=torch.float32)
    states = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        torch.rand(1)
        copied = copy.deepcopy(model)
        method(num_train_epochs=1, per_device_train_batch_size=4).unlearn(copied, data, seed)
        results.append(torch.cat([parameter.detach().flatten() for parameter in copied.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    torch.set_rng_state(states)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make_model", [lambda: tiny.vit(hidden_dropout_prob=0.2), tiny.resnet])
def test_modes_flags_buffers_random_states_and_frozen_parameters_stay(method, make_model):
    model, data = tiny.randomized(make_model(), torch.float32), images(dtype=torch.float32)
    frozen = [name for name, _ in model.named_parameters()][::2]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    next(model.children()).train()
    before = tiny.parameters_and_buffers(model)
    flags = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    state = torch.get_rng_state()
    method(num_train_epochs=1, per_device_train_batch_size=4).unlearn(model, data)
    after = tiny.parameters_and_buffers(model)
    buffers = [name for name, _ in model.named_buffers()]
    assert all(torch.equal(before[name], after[name]) for name in frozen + buffers)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert flags == ([p.requires_grad for p in model.parameters()], [m.training for m in model.modules()])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_of_an_adapter_on_a_language_model_the_base_keeps_every_bit(method):
    torch.manual_seed(0)
    model = get_peft_model(heads.gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    tiny.randomized(model, torch.float32)
    before = tiny.parameters_and_buffers(model)
    method(num_train_epochs=1, per_device_train_batch_size=4).unlearn(model, texts())
    changed = {
        name for name, value in tiny.parameters_and_buffers(model).items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all("lora_" in name for name in changed)
    assert model.config.use_cache


@pytest.mark.parametrize("labels", ["class", "tokens", "next"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_serves_classifiers_token_classifiers_and_language_models(method, labels):
    kinds = {"class": "bert sequence", "tokens": "bert tokens", "next": "gpt2 causal"}
    torch.manual_seed(0)
    model = heads.HEADS[kinds[labels]][0]()
    before = tiny.parameters_and_buffers(model)
    method(num_train_epochs=1, per_device_train_batch_size=4).unlearn(model, texts(labels))
    after = tiny.parameters_and_buffers(model)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_too_small_for_half_precision_add_up(optimizer):
    model, data = tiny.randomized(heads.gpt2(), torch.bfloat16), texts()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(1.0)
    before = model.transformer.ln_f.weight.detach().clone()
    once, often = copy.deepcopy(model), copy.deepcopy(model)
    rate = 5e-4 if optimizer == "adamw" else 1e-2
    FineTuning(rate, 1, 4, optimizer, 0.0).unlearn(once, data)
    FineTuning(rate, 16, 4, optimizer, 0.0).unlearn(often, data)
    assert (once.transformer.ln_f.weight != before).sum() < (often.transformer.ln_f.weight != before).sum()
    assert often.transformer.ln_f.weight.dtype == torch.bfloat16


def test_a_loss_that_is_no_number_stops_the_training():
    model, data = tiny.randomized(tiny.vit(), torch.float32), images(dtype=torch.float32)
    with pytest.raises(FloatingPointError, match=r"The loss of step \d+ of 30 is .* lower `learning_rate`"):
        FineTuning(1e20, 10, 4).unlearn(model, data)
    assert not model.training


def test_weights_that_the_last_step_made_no_numbers_are_told():
    model, data = tiny.randomized(tiny.vit(), torch.float32), images(dtype=torch.float32)
    with pytest.raises(FloatingPointError, match="After 1 steps some weights are not finite"):
        FineTuning(1e30, 1, weight_decay=1e30).unlearn(model, data)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_trainable_parameters_is_refused(method):
    model = tiny.vit().requires_grad_(False)
    with pytest.raises(ValueError, match=r"require[s]? gradients"):
        method().unlearn(model, images(dtype=torch.float32))


@pytest.mark.parametrize("method", METHODS)
def test_data_that_a_method_needs_may_not_be_empty(method):
    needs_forget = method in (NegGradPlus, RandomLabels, SalUn)
    data = images(0, 3) if needs_forget else images(3, 0)
    with pytest.raises(ValueError, match="The (forget|retain) data are empty"):
        method().unlearn(tiny.randomized(tiny.vit()), data)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"num_train_epochs": -1},
        {"num_train_epochs": math.nan},
        {"per_device_train_batch_size": 0},
        {"weight_decay": -0.1},
        {"optimizer": "adam"},
        {"schedule": "linear"},
    ],
)
def test_settings_out_of_range_are_refused(method, values):
    with pytest.raises(ValueError, match=f"`{next(iter(values))}` is .* but "):
        method(**values)


def test_sparse_sgd_equals_sgd_with_all_other_weights_put_back():
    model, data = tiny.randomized(tiny.vit()), images()
    selection, dense = selection_of(model), copy.deepcopy(model)
    guard = FreezeGuard(model, selection)
    masks = {name: torch.zeros(p.numel(), dtype=torch.bool) for name, p in dense.named_parameters()}
    for name, indices in selection.indices.items():
        masks[name][indices] = True
    start = {name: parameter.detach().clone() for name, parameter in dense.named_parameters()}
    ours = SparseSGD(model.named_parameters(), selection.indices, 0.05, 0.9, 0.1)
    theirs = torch.optim.SGD(dense.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for batch in taken(shuffled_batches(data, "all", TrainingMethod(per_device_train_batch_size=4), 0), 6):
        for each, optimizer in ((model, ours), (dense, theirs)):
            optimizer.zero_grad()
            each(**batch).loss.backward()
            optimizer.step()
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                parameter.copy_(torch.where(masks[name].view_as(parameter), parameter, start[name]))
    assert_close(model, dense)
    guard.verify(model)
    num_states = sum(value.numel() for state in ours.state.values() for value in state.values())
    assert num_states == selection.num_selected
