# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes reports of an image classifier and of a language model."""

import math
from dataclasses import replace

from hf_deepclean import UnlearningReport
from hf_deepclean.evaluation.figures.membership import MembershipAttack
from hf_deepclean.evaluation.recovery import RelearningResult
from hf_deepclean.evaluation.results import ClassResult, SplitResult, TokenResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.report.results import IntegrityResult, SelectionResult
from hf_deepclean.selection.search import ResetTrial, SelectionSearch


def stage(accuracy, auc=0.6, divergence=None):
    deciles = tuple(0.01 * step for step in range(1, 10))
    classes = {"cat": ClassResult(4, 1.0), "dog": ClassResult(6, 0.5)}
    split = SplitResult(10, 0.25, deciles, accuracy, (accuracy - 0.1, accuracy + 0.1), classes, {"f1": 0.5})
    return StageResult(
        {"forget": split, "retain": split}, MembershipAttack(auc, (0.5, 0.7), 0.02, 10, 200), divergence
    )


def report(**changes):
    values = {
        "model_class": "ViTForImageClassification",
        "settings": {"gamma": None, "reset_fraction": 0.1, "target_modules": ["classifier"]},
        "selection": SelectionResult("reset_fraction", math.inf, 1000, 100, 3, {"a": (100, 400), "b": (0, 600)}),
        "num_fisher_examples": {"forget": 10, "retain": 90},
        "stages": {"reference": stage(0.7, 0.5), "before": stage(1.0, 0.8), "after_repair": stage(0.75, 0.52, 0.1)},
        "integrity": IntegrityResult(99, 900, 12, "ab" * 32),
        "seconds": {"repair": 1.25},
        "versions": {"torch": "2"},
        "seed": 7,
        "fisher_fallback": {"a.weight": "no rule"},
    }
    return UnlearningReport(**(values | changes))


def text_stage(num_verbatim, extraction_strength=0.25, perplexity=3.5):
    tokens = TokenResult(8, 90, perplexity, 0.75, num_verbatim, (0.1, 0.4), extraction_strength)
    split = SplitResult(9, 1.25, (1.0,) * 9, tokens=tokens)
    attacks = [MembershipAttack(auc, (0.5, 0.7), 0.02, 8, 200) for auc in (0.61, 0.62)]
    return StageResult({"forget": split, "retain": split}, attacks[0], min_k_membership=attacks[1])


def text_report(**changes):
    return report(
        stages={"reference": text_stage(0), "before": text_stage(8, 1.0, 1.01), "after_repair": text_stage(2)}
        | changes
    )


def search_for(target):
    before, trials = (
        ResetTrial(0, None, 1.0, 0.9),
        (ResetTrial(100, math.inf, 0.2, 0.8), ResetTrial(300, 1.5, 0.1, 0.3)),
    )
    return SelectionSearch(target, "accuracy", 0.5, 0.5, before, trials, 0, {"forget": 10, "retain": 64})


def stages_of(retain, forget=0.5, interval=(0.4, 0.6), auc=0.5, auc_interval=(0.4, 0.6)):
    """The stages before and after the repair, with this accuracy on the retained data and then on the forget data."""
    before = stage(1.0)
    classes = {
        "forget": {"cat": ClassResult(10, forget)},
        "retain": {"dog": ClassResult(5, retain), "owl": ClassResult(5, retain)},
    }
    figures = {"forget": (forget, interval), "retain": (retain, None)}
    splits = {
        split: replace(before.splits[split], accuracy=value, accuracy_interval=bounds, per_class=classes[split])
        for split, (value, bounds) in figures.items()
    }
    after = StageResult(splits, MembershipAttack(auc, auc_interval, 0.02, 10, 200))
    of_before = {split: replace(before.splits[split], per_class=classes[split]) for split in splits}
    return {"before": replace(before, splits=of_before), "after_repair": after}


def relearning(**stages):
    return RelearningResult.of(
        (0, 1, 2), 1e-3, {name: [s.splits["forget"] for s in of] for name, of in stages.items()}
    )
