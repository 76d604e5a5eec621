# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import logging

import pytest
import torch
from torch import nn

from hf_deepclean import accumulate_fisher_diagonal
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from hf_deepclean.models.heads import find_likelihood
from tests import tiny
from tests.architectures.batches import batch as architecture_batch
from tests.architectures.batches import log_likelihood
from tests.architectures.entries import entries
from tests.architectures.tiny_models import build


MODELS = {
    "vit": (tiny.vit, tiny.image_batch),
    "resnet": (tiny.resnet, tiny.image_batch),
    "convnext": (tiny.convnext, tiny.image_batch),
    "bert": (tiny.bert, tiny.text_batch),
    "albert": (tiny.albert, tiny.text_batch),
    "gpt2": (tiny.gpt2, tiny.text_batch),
}


def reference(model, batch, fisher_type="empirical", log_likelihood_func=None):
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    likelihood = find_likelihood(model, batch, log_likelihood_func)
    parameters = dict(model.named_parameters())
    add_reference_squares_(sums, model, batch, parameters, fisher_type, likelihood=likelihood)
    return sums


def worst_relative_difference(sums, expected):
    """
    The largest difference of an entry relative to the largest entry of its tensor. The latter has a floor, for tensors
    that are zero but for rounding (key biases).
    """
    largest = max(value.max().item() for value in expected.values())
    return max(
        (sums[name] - value).abs().max().item() / max(value.max().item(), 1e-12 * largest)
        for name, value in expected.items()
    )


@pytest.mark.parametrize("fisher_type", ["empirical", "sampled", "expected"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_one_example_reference_for_every_parameter_and_batch_size(name, fisher_type):
    make_model, make_batch = MODELS[name]
    model, batch = tiny.randomized(make_model()), make_batch()
    expected = reference(model, batch, fisher_type)
    for batch_size in (1, 3, 8):
        # With the self-check, a parameter that the engine gets wrong would come from the reference.
        fisher = accumulate_fisher_diagonal(
            model, tiny.in_batches(batch, batch_size), fisher_type=fisher_type, self_check=batch_size == 3
        )
        assert fisher.num_examples == 11
        assert worst_relative_difference(fisher.sums, expected) <= 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_of_these_architectures_needs_the_fallback(name):
    make_model, make_batch = MODELS[name]
    fisher = accumulate_fisher_diagonal(tiny.randomized(make_model()), [make_batch()])
    assert fisher.fallback_parameters == {}


def test_batches_that_take_another_way_through_the_model_are_probed_again():
    """T5 masks its biases only in a padded batch."""
    entry = next(entry for entry in entries() if (entry.head, entry.model_type) == ("seq2seq LM", "t5"))
    model = build(entry)
    padded = architecture_batch(entry, model)
    whole = {key: value[:2].clone() for key, value in padded.items()}
    whole["attention_mask"].fill_(1)
    for batches in ([whole, padded], [padded, whole]):
        fisher = accumulate_fisher_diagonal(model, batches, log_likelihood_func=log_likelihood)
        assert fisher.fallback_parameters == {}
        expected = [reference(model, batch, log_likelihood_func=log_likelihood) for batch in batches]
        total = {name: expected[0][name] + expected[1][name] for name in expected[0]}
        assert worst_relative_difference(fisher.sums, total) <= 1e-9


def test_order_of_the_examples_does_not_matter():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    order = torch.randperm(11)
    shuffled = {key: value[order] for key, value in batch.items()}
    first = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 4))
    second = accumulate_fisher_diagonal(model, tiny.in_batches(shuffled, 4))
    assert worst_relative_difference(second.sums, first.sums) <= 1e-12


def test_length_of_the_padding_does_not_matter():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch()
    longer = dict(batch)
    for key in ("input_ids", "attention_mask"):
        longer[key] = nn.functional.pad(batch[key], (0, 5))
    first = accumulate_fisher_diagonal(model, [batch])
    second = accumulate_fisher_diagonal(model, [longer])
    assert worst_relative_difference(second.sums, first.sums) <= 1e-9


def test_a_sequence_as_long_as_the_batch_is_large_is_not_mistaken_for_it():
    model, batch = tiny.randomized(tiny.bert()), tiny.text_batch(size=8, length=8)
    expected = reference(model, batch)
    for batch_size in (8, 4, 2):
        fisher = accumulate_fisher_diagonal(model, tiny.in_batches(batch, batch_size))
        assert worst_relative_difference(fisher.sums, expected) <= 1e-9


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementation_does_not_matter(attention):
    model = tiny.randomized(tiny.vit())
    expected = reference(model, tiny.image_batch())
    model.set_attn_implementation(attention)
    fisher = accumulate_fisher_diagonal(model, [tiny.image_batch()])
    # The eager attention of transformers takes its softmax in float32, whatever the model's dtype.
    assert worst_relative_difference(fisher.sums, expected) <= (1e-9 if attention == "sdpa" else 1e-6)


def test_float32_agrees_with_float64_to_single_precision():
    model = tiny.randomized(tiny.vit())
    expected = accumulate_fisher_diagonal(model, [tiny.image_batch()]).sums
    single = accumulate_fisher_diagonal(model.float(), [tiny.image_batch(dtype=torch.float32)]).sums
    assert all(total.dtype == torch.float32 for total in single.values())
    # The gradient of a key bias under a softmax is zero but for rounding.
    expected = {n: v for n, v in expected.items() if not n.endswith(("k_proj.bias", "key.bias"))}
    assert worst_relative_difference(single, expected) <= 1e-4


def test_bfloat16_model_accumulates_in_float32():
    model = tiny.randomized(tiny.vit(), torch.bfloat16)
    fisher = accumulate_fisher_diagonal(model, [tiny.image_batch(dtype=torch.bfloat16)])
    assert all(total.dtype == torch.float32 for total in fisher.sums.values())


def test_the_model_is_left_as_it_was_also_after_an_error():
    model = tiny.randomized(tiny.resnet()).train()
    model.classifier[1].weight.requires_grad_(False)
    before = tiny.parameters_and_buffers(model)
    config = copy.deepcopy(model.config.to_dict())
    modes = [(module.training) for module in model.modules()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]

    def broken():
        yield tiny.image_batch()
        raise OSError("no more data")

    accumulate_fisher_diagonal(model, [tiny.image_batch()])
    with pytest.raises(OSError, match="no more data"):
        accumulate_fisher_diagonal(model, broken())
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())
    assert model.config.to_dict() == config
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_parameters_are_left_out():
    model = tiny.randomized(tiny.vit())
    model.vit.requires_grad_(False)
    fisher = accumulate_fisher_diagonal(model, [tiny.image_batch()])
    assert list(fisher.sums) == ["classifier.weight", "classifier.bias"]


def test_a_squared_batch_gradient_would_be_another_quantity():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    fisher = accumulate_fisher_diagonal(model, [batch]).mean()["classifier.weight"]
    loss = model(**batch).loss
    squared_mean = torch.autograd.grad(loss, model.classifier.weight)[0].square()
    assert fisher.sum() > 3 * squared_mean.sum()


class Halved(nn.Module):
    """Scales by a parameter in a way that hides the parameter from the engine."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return x * self.weight


class Hidden(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.first, self.scale, self.last = nn.Linear(3, 5), scale, nn.Linear(5, 2)

    def forward(self, x):
        return (self.last(self.scale(self.first(x))),)


def gaussian(outputs, labels):
    return -(outputs[0] - labels[:, None]).square().sum(dim=1)


def test_self_check_finds_a_parameter_the_engine_did_not_see(caplog):
    model = Hidden(Halved(5)).double()
    batch = {"x": torch.randn(7, 3).double(), "labels": torch.randn(7).double()}
    with caplog.at_level(logging.WARNING):
        fisher = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 3), log_likelihood_func=gaussian)
    expected = reference(model, batch, log_likelihood_func=gaussian)
    assert worst_relative_difference(fisher.sums, expected) <= 1e-9
    assert list(fisher.fallback_parameters) == ["scale.weight"]
    assert sum("slower: scale." in record.message for record in caplog.records) == 1


def test_a_parameter_that_no_op_shows_is_never_a_silent_zero_without_the_self_check_either():
    model = Hidden(Halved(5)).double()
    batch = {"x": torch.randn(7, 3).double(), "labels": torch.randn(7).double()}
    fisher = accumulate_fisher_diagonal(model, [batch], log_likelihood_func=gaussian, self_check=False)
    expected = reference(model, batch, log_likelihood_func=gaussian)
    assert worst_relative_difference(fisher.sums, expected) <= 1e-9
    assert fisher.fallback_parameters == {"scale.weight": "used where no op shows it"}


def test_sampled_labels_depend_on_the_seed_and_not_on_the_batches():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch(40)
    first, same = (
        accumulate_fisher_diagonal(model, tiny.in_batches(batch, size), fisher_type="sampled", seed=1)
        for size in (40, 7)
    )
    other = accumulate_fisher_diagonal(model, [batch], fisher_type="sampled", seed=2)
    assert worst_relative_difference(same.sums, first.sums) <= 1e-9
    assert worst_relative_difference(other.sums, first.sums) > 1e-3


def test_sampled_fisher_tends_to_the_expected_one():
    model, one = tiny.randomized(tiny.vit()), tiny.image_batch(1)
    many = {key: value.repeat(2000, *[1] * (value.ndim - 1)) for key, value in one.items()}
    expected = accumulate_fisher_diagonal(model, [one], fisher_type="expected").mean()["classifier.bias"]
    sampled = accumulate_fisher_diagonal(model, tiny.in_batches(many, 500), fisher_type="sampled")
    # The standard error of 2,000 draws is about 2 %.
    assert torch.allclose(sampled.mean()["classifier.bias"], expected, rtol=0.1)


def test_a_likelihood_that_is_not_finite_names_the_position_of_the_example():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    batch["pixel_values"][7] = float("nan")
    with pytest.raises(ValueError, match="log-likelihood of the example at position 7 is nan"):
        accumulate_fisher_diagonal(model, tiny.in_batches(batch, 4))


def test_a_square_that_is_not_finite_names_the_parameter_and_the_position():
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    model.forward = lambda x: (model[0](x),)
    batch = {"x": torch.ones(5, 3), "labels": torch.zeros(5)}
    batch["x"][3] = 1e25

    def linear_likelihood(outputs, labels):
        return outputs[0][:, 0]

    with pytest.raises(ValueError, match=r"squared gradient of 0\.weight is not finite .* position 3"):
        accumulate_fisher_diagonal(model, tiny.in_batches(batch, 2), log_likelihood_func=linear_likelihood)


def test_a_loss_that_is_not_the_likelihood_is_refused():
    model = tiny.randomized(tiny.vit())
    loss_function = model.loss_function
    model.loss_function = lambda *args, **kwargs: 2 * loss_function(*args, **kwargs)
    with pytest.raises(ValueError, match=r"ViTForImageClassification reports a loss .* Pass a `log_likelihood_func"):
        accumulate_fisher_diagonal(model, [tiny.image_batch()])


def test_batch_statistics_are_refused():
    model = tiny.randomized(tiny.resnet())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    batch = {"pixel_values": torch.randn(3, 1, 32, 32).double(), "labels": torch.zeros(3, dtype=torch.long)}
    with pytest.raises(ValueError, match="mixes the examples of a batch"):
        accumulate_fisher_diagonal(model, [batch])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "iterable of batches is empty"),
        ({"parameters": {}}, "No parameter"),
        ({"fisher_type": "exact"}, "must be one of 'empirical', 'sampled', 'expected'"),
        ({"fisher_type": "expected", "log_likelihood_func": gaussian}, "Use `fisher_type='empirical'`"),
        ({"batches": [{"pixel_values": torch.zeros(1, 1, 8, 8)}]}, 'tensor under "labels"'),
    ],
)
def test_bad_input_is_refused_with_what_to_do(arguments, message):
    arguments = {"batches": [tiny.image_batch()]} | arguments
    with pytest.raises(ValueError, match=message):
        accumulate_fisher_diagonal(tiny.vit().double(), **arguments)
