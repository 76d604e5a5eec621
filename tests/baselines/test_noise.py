# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherForgetting, accumulate_fisher_diagonal
from tests import heads, tiny
from tests.baselines import forgetting


def expected_fisher(model, data):
    """The Fisher diagonal in expectation over all classes, one example and one class at a time."""
    parameters = forgetting.parameters_of(model)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for example in forgetting.examples(data, "retain"):
        log_probabilities = torch.log_softmax(model(pixel_values=example["pixel_values"]).logits[0], dim=-1)
        for log_probability in log_probabilities:
            gradients = forgetting.gradients(log_probability, parameters, retain_graph=True)
            for name, gradient in gradients.items():
                sums[name] += log_probability.exp().detach() * gradient**2
    return {name: total / data.num_examples("retain") for name, total in sums.items()}


def variances_of(model, fisher, head, scale):
    """The variances by the rules, parameter by parameter."""
    variances = {}
    for name, parameter in forgetting.parameters_of(model).items():
        in_head = name.startswith(head)
        variance = scale * (1 / (fisher[name] + 1e-8)).clamp(max=1e2 if in_head else 1e3)
        if parameter.ndim > 1:
            variance = variance.mean(dim=1, keepdim=True).expand(parameter.shape)
        variances[name] = (10 * variance if in_head or parameter.ndim == 1 else variance).detach()
    return variances


def noise_like(model, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, parameter in forgetting.parameters_of(model).items()
    }


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_the_variance_of_the_noise_is_the_inverse_of_the_expected_fisher(make_model):
    model, data = forgetting.seeded(make_model), forgetting.images()
    before = tiny.parameters_and_buffers(model)
    variances = variances_of(model, expected_fisher(model, data), "classifier", 1e-4)
    noise = noise_like(model, 5)
    FisherForgetting(1e-4, per_device_batch_size=3).unlearn(model, data, seed=5)
    expected = {name: before[name] + variances[name].sqrt() * noise[name] for name in noise}
    forgetting.assert_close(forgetting.parameters_of(model), expected)


def test_the_row_of_a_forgotten_class_is_drawn_anew_around_0():
    model, data = forgetting.seeded(tiny.vit), forgetting.class_request(forgotten=2)
    before, noise = tiny.parameters_and_buffers(model), noise_like(model, 0)
    variances = variances_of(model, expected_fisher(model, data), "classifier", 1e-6)
    FisherForgetting().unlearn(model, data)
    for name in ("classifier.weight", "classifier.bias"):
        expected = before[name] + variances[name].sqrt() * noise[name]
        expected[2] = 1e-3**0.5 * noise[name][2]
        torch.testing.assert_close(model.get_parameter(name).detach(), expected)
    name = "vit.embeddings.patch_embeddings.projection.weight"
    expected = before[name] + variances[name].sqrt() * noise[name]
    torch.testing.assert_close(model.get_parameter(name).detach(), expected)


def test_no_row_is_drawn_anew_while_examples_of_the_class_remain():
    model, data = forgetting.seeded(tiny.vit), forgetting.class_request(forgotten=2)
    data = type(data)(
        data.forget_dataset,
        torch.utils.data.ConcatDataset([data.retain_dataset, data.forget_dataset]),
        data.data_collator,
    )
    before = model.classifier.weight.detach().clone()
    FisherForgetting(noise_scale=1e-12).unlearn(model, data)
    torch.testing.assert_close(model.classifier.weight.detach(), before, rtol=0, atol=1e-3)


def test_language_models_and_token_classifiers_have_labels_drawn_for_them():
    import transformers

    def token_classifier():
        return transformers.BertForTokenClassification(transformers.BertConfig(**heads.TEXT))

    for make_model, labels, head in ((heads.gpt2, "next", "nothing"), (token_classifier, "tokens", "classifier")):
        model, data = forgetting.seeded(make_model), forgetting.texts(labels)
        fisher = accumulate_fisher_diagonal(model, data.batches("retain", 4), fisher_type="sampled", seed=5).mean()
        before, noise = tiny.parameters_and_buffers(model), noise_like(model, 5)
        variances = variances_of(model, fisher, head, 1e-6)
        FisherForgetting().unlearn(model, data, seed=5)
        expected = {name: before[name] + variances[name].sqrt() * noise[name] for name in noise}
        forgetting.assert_close(forgetting.parameters_of(model), expected)


@pytest.mark.parametrize("make_model", [tiny.vit, tiny.resnet])
def test_nothing_but_trainable_weights_changes_and_seeds_give_other_noise(make_model):
    forgetting.assert_contract(FisherForgetting(), make_model, forgetting.images())
    one, other = forgetting.seeded(make_model), forgetting.seeded(make_model)
    FisherForgetting().unlearn(one, forgetting.images(), seed=1)
    FisherForgetting().unlearn(other, forgetting.images(), seed=2)
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="`noise_scale` of FisherForgetting is 0 but must be above 0"):
        FisherForgetting(noise_scale=0)
    data = forgetting.images()
    own = type(data)(data.forget_dataset, data.retain_dataset, data.data_collator, lambda o, y: -o.logits[:, 0])
    with pytest.raises(ValueError, match="takes labels from the model, but a custom likelihood gives none"):
        FisherForgetting().unlearn(forgetting.seeded(tiny.vit), own)
