# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Attacks that tell forget examples from examples that the model never saw."""

import math
from dataclasses import dataclass

import numpy as np

from .attack_intervals import auc_interval, share_below, tpr_interval


@dataclass(frozen=True)
class MembershipAttack:
    """
    Result of an attack that takes confident examples for training data.

    Args:
        auc (`float`):
            Probability that a forget example scores higher than an unseen one, with ties counted half. At 0.5 the two
            cannot be told apart. Above 0.5 the forget data still look like training data. Below 0.5 the model is less
            confident about them than about unseen data, which gives them away as well. The target is the value of a
            model retrained without the forget data, not 0.
        auc_interval (`tuple[float, float]`):
            95 % interval of the AUC; see [`evaluation.figures.attack_intervals.auc_interval`].
        tpr_at_1_percent_fpr (`float`):
            Share of forget examples above the threshold that at most 1 % of the unseen examples exceed. 0.01 is no
            better than chance. Above 0.01, some examples can be recognised with near certainty.
        num_forget (`int`):
            Number of forget examples.
        num_unseen (`int`):
            Number of unseen examples. With fewer than 100, no unseen example may exceed the threshold.
        tpr_interval (`tuple[float, float]`, *optional*):
            95 % interval of that share; see [`evaluation.figures.attack_intervals.tpr_interval`]. It covers that other
            unseen examples would give another threshold. `None` for fewer than 100 unseen examples, which are too few
            to tell.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr_at_1_percent_fpr: float
    num_forget: int
    num_unseen: int
    tpr_interval: tuple[float, float] | None = None


def membership_attack(forget_scores: np.ndarray, unseen_scores: np.ndarray) -> MembershipAttack:
    """
    Attacks membership by thresholds on a score that is higher for training data, such as the true-class confidence.

    Both intervals hold for any two distributions of scores and for few examples, and include that other unseen
    examples would give other thresholds.

    Args:
        forget_scores (`np.ndarray`):
            Scores of the forget examples, shape `(num_forget,)`.
        unseen_scores (`np.ndarray`):
            Scores of examples that the model never saw, of the same distribution, shape `(num_unseen,)`.

    Returns:
        [`MembershipAttack`]

    Raises:
        `ValueError`: If one of the arrays is empty or holds a NaN.
    """
    forget, unseen = np.asarray(forget_scores, dtype=np.float64), np.asarray(unseen_scores, dtype=np.float64)
    if len(forget) == 0 or len(unseen) == 0 or np.isnan(forget).any() or np.isnan(unseen).any():
        raise ValueError(
            f"A membership attack needs scores without NaN for at least one example on each side, but there are "
            f"{len(forget)} forget and {len(unseen)} unseen scores, of which "
            f"{int(np.isnan(forget).sum() + np.isnan(unseen).sum())} are NaN."
        )
    allowed = math.floor(0.01 * len(unseen))
    threshold = np.sort(unseen)[::-1][allowed]
    return MembershipAttack(
        float(share_below(forget, unseen).mean()),
        auc_interval(forget, unseen),
        int((forget > threshold).sum()) / len(forget),
        len(forget),
        len(unseen),
        tpr_interval(forget, unseen),
    )


def logit_scaled_confidence(log_likelihood: np.ndarray) -> np.ndarray:
    """
    Computes the logit-scaled confidence of the true label, `log(p / (1 - p))`.

    Confidences crowd near 1. Logit-scaled confidences are close to normal, as [`lira_scores`] assumes. If you have the
    logits of all classes, [`evaluation.figures.ensembles.margins`] gives the same values without the rounding of `p`
    near 1. Here a `p` of exactly 1 counts as the nearest number below 1 of its dtype.

    Carlini et al., [Membership inference attacks from first principles](https://huggingface.co/papers/2112.03570),
    section IV.

    Args:
        log_likelihood (`np.ndarray`):
            Log-probability of the true label, at most 0, in nats, of any shape.

    Returns:
        `np.ndarray`: Scores of the same shape, higher for training data.

    Raises:
        `ValueError`: If a log-likelihood is above 0 or NaN.
    """
    values = np.asarray(log_likelihood)
    if not (values <= 0).all():
        raise ValueError(
            f"A log-likelihood of a label is at most 0, but {int((~(values <= 0)).sum())} of {values.size} are above "
            "0 or NaN. Pass logarithms of probabilities, not probabilities or losses."
        )
    kind = values.dtype if np.issubdtype(values.dtype, np.floating) else np.dtype(np.float64)
    values = np.minimum(values.astype(np.float64), -np.finfo(kind).eps / 2)
    return values - np.log(-np.expm1(values))


def lira_scores(
    confidence: np.ndarray,
    shadow_confidence: np.ndarray,
    trained_on: np.ndarray | None = None,
    pooled_variance: bool = False,
) -> np.ndarray:
    """
    Computes the scores of LiRA: how much better the confidence on an example fits shadow models that were trained with
    the example than shadow models that were not.

    Online, with shadow models of both kinds, the score is `log N(x; mean_in, std_in) - log N(x; mean_out, std_out)`.
    The Gaussians are fitted to the confidences on each example. Offline, with only models that were trained without
    the example, the score is `(x - mean_out) / std_out`. The paper's score is the normal distribution function of it,
    which gives the same order but ties near 1. Scores are higher for training data. Pass them to
    [`membership_attack`], whose target is the value of a retrained model.

    To attack an unlearned model, the models "with" the example must have been trained with it and must then have
    unlearned it by the same method (U-LiRA, Hayes et al., arXiv 2403.01218). Compared with models that still know the
    example, everything looks forgotten. Use the confidences of [`logit_scaled_confidence`] or
    [`evaluation.figures.ensembles.margins`]. Do not use 0 and 1 for wrong and right: where all models agree, the
    deviation is 0. With few shadow models the variances of single examples are noise, so pool them.

    Carlini et al., [Membership inference attacks from first principles](https://huggingface.co/papers/2112.03570),
    algorithm 1. Their code pools by taking the deviation of all confidences, which includes the differences between
    examples. Here the mean of every example is subtracted first.

    Args:
        confidence (`np.ndarray`):
            Logit-scaled confidence of the attacked model on every example, shape `(num_examples,)`.
        shadow_confidence (`np.ndarray`):
            Logit-scaled confidence of the shadow models, shape `(num_examples, num_models)`.
        trained_on (`np.ndarray`, *optional*):
            Whether a shadow model was trained with the example, booleans of the same shape. By default none was: the
            offline attack.
        pooled_variance (`bool`, *optional*, defaults to `False`):
            Whether all examples share one variance for models trained with them and one for models trained without.

    Returns:
        `np.ndarray`: Scores of shape `(num_examples,)`.

    Raises:
        `ValueError`: If shapes do not fit, a confidence is not finite, an example has too few models of a kind, or
            its confidences do not vary.
    """
    target, shadows = np.asarray(confidence, dtype=np.float64), np.asarray(shadow_confidence, dtype=np.float64)
    if target.ndim != 1 or shadows.ndim != 2 or len(shadows) != len(target):
        raise ValueError(
            f"LiRA needs confidences of shape (num_examples,), and those of shadow models of shape (num_examples, "
            f"num_models), but was given {target.shape} and {shadows.shape}."
        )
    if not np.isfinite(target).all() or not np.isfinite(shadows).all():
        raise ValueError(
            "LiRA fits Gaussians, but some of the confidences are infinite or NaN. Leave these examples out."
        )
    if trained_on is None:
        mean, deviation = _gaussians(shadows, np.ones(shadows.shape, dtype=bool), pooled_variance, "without")
        return (target - mean) / deviation
    trained = np.asarray(trained_on)
    if trained.shape != shadows.shape or trained.dtype != bool:
        raise ValueError(
            f"`trained_on` must hold one boolean for every confidence of a shadow model, shape {shadows.shape}, but "
            f"is {trained.dtype} of shape {trained.shape}."
        )
    log_densities = []
    for chosen, kind in ((trained, "with"), (~trained, "without")):
        mean, deviation = _gaussians(shadows, chosen, pooled_variance, kind)
        log_densities.append(-np.log(deviation) - ((target - mean) / deviation) ** 2 / 2)
    return log_densities[0] - log_densities[1]


def rmia_scores(
    log_likelihood: np.ndarray,
    reference_log_likelihood: np.ndarray,
    population_log_likelihood: np.ndarray,
    population_reference_log_likelihood: np.ndarray,
    gamma: float = 1.0,
    offline_a: float = 0.3,
) -> np.ndarray:
    """
    Computes the scores of RMIA: the share of a population that an example beats in its likelihood ratio.

    The score of `x` is the share of population examples `z` with `(p(x) / q(x)) / (p(z) / q(z)) > gamma`. Here `p` is
    the likelihood under the attacked model, and `q = ((1 + a) q_out + (1 - a)) / 2` with the mean likelihood `q_out`
    under reference models that were trained without `x` and `z`. This line estimates the mean over models trained with
    and without the example, if there are only models without it (offline). If half of the reference models were
    trained with the example (online), `offline_a=1` takes their mean as it is. Scores are higher for training data.
    Pass them to [`membership_attack`], whose target is the value of a retrained model.

    One or two reference models are enough, unlike for [`lira_scores`]. They must have the architecture of the attacked
    model and data of the same distribution. The population must be unknown to all models and of the distribution of
    the attacked examples: otherwise the ratios differ for that reason alone. The `a` of the line depends on how much
    the reference models overfit. The default is that of the authors' code, which also tunes it, between 0 and 1, by
    attacking one reference model with another. Likelihoods of whole texts vanish beside `1 - a`, so pass the mean per
    token, or `offline_a=1`.

    Zarifzadeh, Liu and Shokri, [Low-cost high-power membership inference
    attacks](https://huggingface.co/papers/2312.03262), with the default `gamma` of the authors' code.

    Args:
        log_likelihood (`np.ndarray`):
            Log-likelihood of every attacked example under the attacked model, in nats, shape `(num_examples,)`.
        reference_log_likelihood (`np.ndarray`):
            Log-likelihoods under the reference models, shape `(num_examples, num_models)`.
        population_log_likelihood (`np.ndarray`):
            Log-likelihoods of the population under the attacked model, shape `(num_population,)`.
        population_reference_log_likelihood (`np.ndarray`):
            Log-likelihoods of the population under the reference models, shape `(num_population, num_models)`.
        gamma (`float`, *optional*, defaults to `1.0`):
            The factor by which an example must beat a population example to count.
        offline_a (`float`, *optional*, defaults to `0.3`):
            The `a` of the line, between 0 and 1.

    Returns:
        `np.ndarray`: Scores of shape `(num_examples,)`, between 0 and 1.

    Raises:
        `ValueError`: If shapes do not fit, the population is empty, a likelihood is not finite, or `gamma` or
            `offline_a` lies outside its range.
    """
    if not gamma > 0 or not 0 <= offline_a <= 1:
        raise ValueError(
            f"`gamma` is {gamma} and `offline_a` is {offline_a}, but `gamma` must be above 0, and `offline_a` must be "
            "between 0 (ignores the reference models) and 1 (takes their mean as it is)."
        )
    attacked = _log_ratios(log_likelihood, reference_log_likelihood, offline_a, "attacked examples")
    population = np.sort(
        _log_ratios(population_log_likelihood, population_reference_log_likelihood, offline_a, "population")
    )
    return np.searchsorted(population, attacked - math.log(gamma), side="left") / len(population)


def _gaussians(
    shadows: np.ndarray, chosen: np.ndarray, pooled_variance: bool, kind: str
) -> tuple[np.ndarray, np.ndarray | float]:
    """Computes mean and standard deviation over the chosen models, for every example."""
    counts = chosen.sum(axis=1)
    freedom = counts.sum() - len(counts) if pooled_variance else counts - 1
    if (counts < 1).any() or np.any(freedom < 1):
        raise ValueError(
            f"Every example needs two shadow models trained {kind} it to fit a Gaussian (with `pooled_variance=True` "
            f"one, and some example two), but of {len(counts)} examples {int((counts < 1).sum())} have none and "
            f"{int((counts == 1).sum())} have one."
        )
    mean = np.where(chosen, shadows, 0).sum(axis=1) / counts
    # The computed variance of equal numbers is not always exactly 0.
    constant = np.where(chosen, shadows, -np.inf).max(axis=1) == np.where(chosen, shadows, np.inf).min(axis=1)
    if constant.all() if pooled_variance else constant.any():
        raise ValueError(
            f"The confidences of {int(constant.sum())} examples are the same in all shadow models trained {kind} "
            "them, and no Gaussian fits equal numbers. Pass logit-scaled confidences, not 0 and 1 for wrong and "
            "right, of models that differ. If it concerns few examples, pass `pooled_variance=True`."
        )
    squares = np.where(chosen, shadows - mean[:, None], 0) ** 2
    variance = (squares.sum() if pooled_variance else squares.sum(axis=1)) / freedom
    return mean, np.sqrt(variance)


def _log_ratios(likelihood: np.ndarray, references: np.ndarray, offline_a: float, what: str) -> np.ndarray:
    """Computes the log of the likelihood ratio `p / q` of [`rmia_scores`], for every example."""
    own, others = np.asarray(likelihood, dtype=np.float64), np.asarray(references, dtype=np.float64)
    if own.ndim != 1 or others.ndim != 2 or len(own) != len(others) or others.size == 0:
        raise ValueError(
            f"RMIA needs log-likelihoods of the {what} of shape (num_examples,), and of shape (num_examples, "
            f"num_models) under at least one reference model, but was given {own.shape} and {others.shape}."
        )
    if not np.isfinite(own).all() or not np.isfinite(others).all():
        raise ValueError(f"Some log-likelihoods of the {what} are infinite or NaN. Leave these examples out.")
    line = np.logaddexp.reduce(others, axis=1) - math.log(others.shape[1]) + math.log((1 + offline_a) / 2)
    if offline_a < 1:
        line = np.logaddexp(line, math.log((1 - offline_a) / 2))
    return own - line
