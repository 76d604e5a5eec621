# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from torch.utils.data import default_collate

from hf_deepclean import FineTuning, FreezeGuard, RandomLabels, SalUn, UnlearningData
from hf_deepclean.baselines.labels import draw_wrong_labels, select_salient_weights
from tests import heads, tiny
from tests.baselines.plain_training import assert_close, images, rows_of, texts, train_plainly


SMALL = {"num_train_epochs": 2, "per_device_train_batch_size": 4}


def recorded(data):
    """The data with a collator that records the positions of the rows of every batch, with all rows and the record."""
    rows = [*data.forget_dataset.rows, *data.retain_dataset.rows]
    batches = []

    def collate(some):
        batches.append([next(place for place, row in enumerate(rows) if row is each) for each in some])
        return default_collate(some)

    return UnlearningData(data.forget_dataset, data.retain_dataset, collate), rows, batches


def relabelled(rows, batches, num_forget, num_classes, seed):
    """The recorded batches with wrong labels for the first rows, drawn one example at a time."""
    drawn = [dict(row) for row in rows]
    for place in range(num_forget):
        label = drawn[place]["labels"][None]
        drawn[place]["labels"] = draw_wrong_labels(label, num_classes, torch.tensor([place]), seed)[0]
    return [default_collate([drawn[place] for place in batch]) for batch in batches]


def train_masked(reference, optimizer, batches, masks, max_grad_norm=None):
    for name, parameter in reference.named_parameters():
        parameter.register_hook(lambda gradient, mask=masks[name]: gradient * mask.view_as(gradient))
    start = {name: parameter.detach().clone() for name, parameter in reference.named_parameters()}
    for batch in batches:
        losses = [lambda model, batch=batch: model(**batch).loss]
        train_plainly(reference, optimizer, losses, max_grad_norm=max_grad_norm)
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                parameter.copy_(torch.where(masks[name].view_as(parameter), parameter, start[name]))


@pytest.mark.parametrize("seed", [0, 4])
def test_it_is_adam_on_all_data_with_one_wrong_label_for_each_forget_example(seed):
    model = tiny.randomized(tiny.vit())
    data, rows, batches = recorded(images(5, 6))
    reference = copy.deepcopy(model)
    RandomLabels(**SMALL).unlearn(model, data, seed)
    assert sorted(place for batch in batches[:3] for place in batch) == list(range(11))
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-4)
    fixed = relabelled(rows, batches, 5, tiny.NUM_LABELS, seed)
    train_plainly(reference, optimizer, [lambda m, b=b: m(**b).loss for b in fixed], max_grad_norm=1.0)
    assert_close(model, reference)


def test_a_language_model_is_trained_on_other_tokens_but_reads_its_own():
    model = tiny.randomized(heads.gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    data, rows, batches = recorded(texts())
    reference = copy.deepcopy(model)
    RandomLabels(**SMALL).unlearn(model, data, 2)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-4)
    fixed = relabelled(rows, batches, 4, heads.VOCABULARY, 2)

    def loss(model, batch):
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())

    train_plainly(reference, optimizer, [lambda m, b=b: loss(m, b) for b in fixed], max_grad_norm=1.0)
    assert_close(model, reference)


def test_a_wrong_label_is_never_the_true_one_and_each_of_the_others_as_often():
    labels = torch.randint(0, 5, (20_000,), generator=torch.Generator().manual_seed(0))
    wrong = draw_wrong_labels(labels, 5, torch.arange(20_000), 0)
    assert (wrong != labels).all()
    shifts = ((wrong - labels) % 5).bincount(minlength=5)
    assert shifts[0] == 0
    # Five standard deviations of a count.
    assert (shifts[1:] - 5000).abs().max() < 5 * (20_000 * 0.25 * 0.75) ** 0.5
    assert (draw_wrong_labels(labels, 2, torch.arange(20_000), 0) == 1 - labels.clamp_max(1))[labels < 2].all()


def test_wrong_labels_depend_on_the_seed_the_example_and_the_scored_position_alone():
    labels = heads.text("tokens")["labels"]
    places = torch.tensor([3, 0, 7, 5])
    wrong = draw_wrong_labels(labels, 4, places, 1)
    assert torch.equal(wrong == -100, labels == -100)
    assert (wrong != labels)[labels != -100].all()
    alone = draw_wrong_labels(labels[2:3], 4, places[2:3], 1)
    assert torch.equal(alone, wrong[2:3])
    padded = torch.nn.functional.pad(labels, (2, 3), value=-100)
    assert torch.equal(draw_wrong_labels(padded, 4, places, 1)[:, 2:-3], wrong)
    assert not torch.equal(draw_wrong_labels(labels, 4, places, 2), wrong)
    assert not torch.equal(draw_wrong_labels(labels, 4, places + 1, 1), wrong)


def test_rows_of_a_data_set_read_at_once_are_those_read_one_by_one():
    digits = tiny.digits()
    parts = digits.select(range(6)), digits.select(range(6, 16))
    model = tiny.vit(num_labels=10)
    other, listed = copy.deepcopy(model), [tiny.Rows([part[i] for i in range(len(part))]) for part in parts]
    RandomLabels(**SMALL).unlearn(model, UnlearningData(*parts, default_collate))
    RandomLabels(**SMALL).unlearn(other, UnlearningData(*listed, default_collate))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("method", [RandomLabels, SalUn])
def test_a_head_without_labels_to_draw_is_refused(method):
    make_model, make_batch, _ = heads.HEADS["bert span"]
    rows = rows_of(make_batch())
    with pytest.raises(ValueError, match="a span likelihood does not give. Use `FineTuning`"):
        method().unlearn(make_model(), UnlearningData(rows, rows, default_collate))


def test_rows_that_a_collator_packs_are_refused():
    row = {"input_ids": torch.arange(3, 9), "labels": torch.arange(3, 9), "position_ids": torch.arange(6) % 3}
    rows = tiny.Rows([row, row])
    with pytest.raises(ValueError, match=r"made 4 examples of 2 rows.* does not pack"):
        RandomLabels().unlearn(heads.gpt2(), UnlearningData(rows, tiny.Rows([]), default_collate))


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_salient_weights_have_the_largest_gradients_summed_one_example_at_a_time(make_model):
    model, data = tiny.randomized(make_model()), images()
    next(model.parameters()).requires_grad_(False)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = 0
    for row in data.forget_dataset.rows:
        loss = model(**default_collate([row])).loss
        total = total + torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(trainable.values()))])
    # The borders of kernels get no gradient from small images; the first of these weights fill up the half.
    expected = set(total.abs().argsort(descending=True, stable=True)[: len(total) // 2].tolist())
    for batch_size in (2, 64):
        selection, first, chosen = select_salient_weights(model, data, 0.5, batch_size), 0, set()
        for name, parameter in trainable.items():
            chosen |= {first + index for index in selection.indices.get(name, torch.zeros(0)).long().tolist()}
            first += parameter.numel()
        assert chosen == expected
    assert selection.num_selected == first // 2


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_salun_trains_the_salient_weights_on_random_labels_and_puts_all_others_back(kind):
    model = tiny.randomized(tiny.vit())
    plain = images(5, 6)
    method = SalUn(0.02, **SMALL, optimizer=kind, weight_decay=0.1, saliency_fraction=0.3)
    selection = select_salient_weights(model, plain, 0.3, 4)
    masks = {name: torch.zeros(p.numel(), dtype=torch.bool) for name, p in model.named_parameters()}
    for name, indices in selection.indices.items():
        masks[name][indices] = True
    data, rows, batches = recorded(plain)
    reference = copy.deepcopy(model)
    method.unlearn(model, data, 6)
    # The first two batches are those of the saliency pass.
    fixed = relabelled(rows, batches[2:], 5, tiny.NUM_LABELS, 6)
    assert len(fixed) == 6
    common = {"lr": 0.02, "weight_decay": 0.1}
    if kind == "sgd":
        train_masked(reference, torch.optim.SGD(reference.parameters(), momentum=0.9, **common), fixed, masks)
    else:
        train_masked(reference, torch.optim.AdamW(reference.parameters(), **common), fixed, masks, max_grad_norm=1.0)
    assert_close(model, reference)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_salun_leaves_every_other_bit_alone_whatever_decay_and_momentum(make_model, dtype, optimizer):
    model, data = tiny.randomized(make_model(), dtype), images(dtype=dtype)
    selection = select_salient_weights(model, data, 0.5, 4)
    guard, before = FreezeGuard(model, selection), tiny.parameters_and_buffers(model)
    SalUn(0.05, 3, 4, optimizer, weight_decay=1.0).unlearn(model, data)
    guard.verify(model)
    after = tiny.parameters_and_buffers(model)
    num_changed = sum((before[name] != after[name]).sum().item() for name in before)
    assert 0.5 * selection.num_selected < num_changed <= selection.num_selected
    FineTuning(0.05, 1, 4, optimizer).unlearn(model, data)
    with pytest.raises(RuntimeError, match="Outside the selected weights"):
        guard.verify(model)


def test_after_random_labels_the_forget_examples_lose_their_likelihood():
    model, data = tiny.randomized(tiny.vit(), torch.float32), images(4, 12, torch.float32)
    everything = UnlearningData(data.retain_dataset, data.forget_dataset, default_collate)
    forget = next(data.batches("forget", 4))
    FineTuning(0.1, 40, weight_decay=0.0).unlearn(model, everything)
    FineTuning(0.1, 40, weight_decay=0.0).unlearn(model, data)
    model.eval()
    before = model(**forget).loss.item()
    RandomLabels(1e-2, 20).unlearn(model, data)
    assert model(**forget).loss.item() > before


@pytest.mark.parametrize("fraction", [0.0, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match="`saliency_fraction` is .* above 0 and at most 1"):
        SalUn(saliency_fraction=fraction)


def test_gradients_that_are_no_numbers_are_no_saliency():
    model = tiny.randomized(tiny.vit(), torch.float32)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises((FloatingPointError, ValueError), match="finite"):
        select_salient_weights(model, images(dtype=torch.float32), 0.5, 4)
