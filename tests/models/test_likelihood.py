# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from hf_deepclean.fisher.engine.scores import fisher_scores
from hf_deepclean.models.likelihood import Likelihood, classification_log_likelihood, token_log_likelihood
from tests import tiny


@pytest.mark.parametrize(
    ("make_model", "make_batch"),
    [(tiny.vit, tiny.image_batch), (tiny.resnet, tiny.image_batch), (tiny.bert, tiny.text_batch)],
)
def test_sums_to_the_model_own_loss_one_example_at_a_time(make_model, make_batch):
    model, batch = tiny.randomized(make_model()), make_batch()
    labels = batch["labels"]
    log_likelihood = classification_log_likelihood(
        model(**{key: value for key, value in batch.items() if key != "labels"}), labels
    )
    losses = [model(**example).loss for example in tiny.in_batches(batch, 1)]
    assert torch.allclose(-log_likelihood, torch.stack(losses), rtol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_its_gradient_is_that_of_cross_entropy_as_often_as_it_is_asked_for(masked):
    logits = torch.randn(3, 4, 7, dtype=torch.float64)
    if masked:
        logits[:, :, 5] = -torch.inf
    logits.requires_grad_()
    labels = torch.tensor([[0, 1, -100, 6], [-100] * 4, [2, 2, 3, 4]])
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(3, 4).sum(dim=1)
    weights = torch.randn(3, dtype=torch.float64)
    (expected,) = torch.autograd.grad((weights * losses).sum(), logits)
    log_likelihood = token_log_likelihood((logits,), labels)
    assert torch.allclose(-log_likelihood, losses, rtol=1e-12)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(-(weights * log_likelihood).sum(), logits, retain_graph=True)
        assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-15)


def test_half_precision_logits_are_raised_to_float32():
    outputs = (torch.randn(3, 4, dtype=torch.bfloat16),)
    assert classification_log_likelihood(outputs, torch.tensor([0, 1, 2])).dtype == torch.float32


@pytest.mark.parametrize("labels", [[0, 4, 1], [0, -1, 1], [-100, 0, 1]])
def test_labels_outside_the_head_are_refused(labels):
    with pytest.raises(ValueError, match="1 labels of a batch lie outside the head's range 0 to 3"):
        classification_log_likelihood((torch.randn(3, 4),), torch.tensor(labels))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.randn(3, 7, 4), torch.zeros(3, 7, dtype=torch.long)),
        (torch.randn(3, 1), torch.zeros(3)),
        (torch.randn(3, 4), torch.zeros(3, 4)),
    ],
)
def test_other_heads_need_a_likelihood_of_their_own(logits, labels):
    with pytest.raises(ValueError, match="log_likelihood_func"):
        classification_log_likelihood((logits,), labels)


def test_a_likelihood_that_averages_over_the_batch_is_refused():
    with pytest.raises(ValueError, match="one log-likelihood per example"):
        Likelihood("custom", lambda outputs, labels: outputs[0].mean())({}, (torch.randn(3, 4),), torch.zeros(3))


def test_sampled_labels_follow_the_model_and_skip_impossible_classes():
    log_probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).log().repeat(4000, 1)
    (scores,) = fisher_scores(
        Likelihood("classification"), {}, (log_probabilities,), torch.zeros(4000, dtype=torch.long), "sampled", seed=3
    )
    shares = [(scores.exp() - p).abs().lt(1e-6).float().mean().item() for p in (0.5, 0.0, 0.3, 0.2)]
    # Three standard errors of 4,000 draws are 0.024.
    assert shares == pytest.approx([0.5, 0.0, 0.3, 0.2], abs=0.024)
