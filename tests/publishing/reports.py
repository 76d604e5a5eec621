# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Makes reports to publish. Every place that can hold one has a word or number that must not be published: Zweifelsfrei,
31337 or Schneewittchen.
"""

import math
from dataclasses import replace

from hf_deepclean import PublicReport
from hf_deepclean.evaluation.figures.intervals import proportion_interval
from hf_deepclean.evaluation.figures.membership import MembershipAttack
from hf_deepclean.evaluation.recovery import RelearningResult
from hf_deepclean.evaluation.results import ClassResult, SplitResult, TokenResult
from hf_deepclean.evaluation.samples import SAMPLE_SIZES, sample_size
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.report.provenance import Provenance
from hf_deepclean.report.report import UnlearningReport
from hf_deepclean.report.results import IntegrityResult, SelectionResult
from hf_deepclean.selection.fisher_plane import FisherPlane


def split(number, share=0.5, name="Zweifelsfrei"):
    half = 1.96 * 0.4 / math.sqrt(number)
    return SplitResult(
        number,
        0.25,
        tuple(0.05 * step for step in range(1, 10)),
        share,
        proportion_interval(share, number),
        {name: ClassResult(number, 0.5)},
        {f"f1_{name}": 0.123456789},
        mean_loss_interval=(0.25 - half, 0.25 + half),
    )


def text_split(number, perplexity=3.0):
    half = 0.8 / math.sqrt(number)
    tokens = TokenResult(
        number,
        17 * number,
        perplexity,
        0.75,
        number // 2,
        proportion_interval(0.5, number),
        0.25,
        accuracy_interval=(0.75 - half, 0.75 + half),
        perplexity_interval=(perplexity * math.exp(-half), perplexity * math.exp(half)),
        extraction_strength_interval=(0.25 - half, 0.25 + half),
    )
    return SplitResult(number, 1.25, (1.0,) * 9, tokens=tokens)


def attack(num_forget, num_unseen):
    half = 0.6 / math.sqrt(num_forget)
    return MembershipAttack(0.5, (0.5 - half, 0.5 + half), 0.02, num_forget, num_unseen, (0.0, 0.1))


def stage(num_forget, num_others=2000, make=split, **kwargs):
    splits = {"forget": make(num_forget), "retain": make(num_others), "eval_Zweifelsfrei": make(num_others)}
    splits |= {"eval_b": make(num_others), "unseen": make(num_others)}
    drawn = {split: sample_size(split, splits[split].num_examples) for split in SAMPLE_SIZES}
    sample = StageResult(
        {split: make(size) for split, size in drawn.items()},
        attack(drawn["forget"], drawn["unseen"]),
        divergence_to_reference=0.1,
    )
    attacked = attack(num_forget, num_others)
    return StageResult(splits, attacked, divergence_to_reference=0.1, **({"sample": sample} | kwargs))


def with_sample(result):
    """Results whose drawn rows have the figures of all rows."""
    drawn = {split: result.splits[split] for split in SAMPLE_SIZES if split in result.splits}
    return replace(result, sample=StageResult(drawn, result.membership))


def plane():
    shares = ((0.1, 0.9), (1.0, 0.25), (10.0, 0.0))
    edges = (-8.0, -7.0, -6.0), (-8.0, -7.0)
    return FisherPlane(*edges, ((400,), (600,)), ((0,), (250,)), (0, 0), (0, 0), (0, 0), shares)


def report(num_forget=400, num_others=2000, make=split, **changes):
    values = {
        "model_class": "ViTForImageClassification",
        "settings": {
            "reset_value": "zero",
            "fisher_type": "empirical",
            "learning_rate": 1e-4,
            "pretrained_model": "/home/Zweifelsfrei/model",
            "target_modules": ["Schneewittchen"],
            "run_name": "Schneewittchen",
        },
        "selection": SelectionResult(
            "adaptive", 1.23456, 1000, 250, 3, {"vit.layer.0.a": (250, 400), "vit.layer.1.a": (0, 600)}, plane()
        ),
        "num_fisher_examples": {"forget": num_forget, "retain": num_others},
        "stages": {
            "before": stage(num_forget, num_others, make),
            "after_repair": stage(num_forget, num_others, make),
            "reference": stage(num_forget, num_others, make),
        },
        "integrity": IntegrityResult(249, 750, 12, "ab" * 32),
        "seconds": {"forget Fisher": 1.0, "repair": 20.0},
        "versions": {"torch": "2.13"},
        "seed": 31337,
        "fisher_fallback": {"Schneewittchen.weight": "no rule"},
        "provenance": Provenance("me/old", "a" * 40, {"license": "mit"}),
    }
    return UnlearningReport(**(values | changes))


def published(*args, disclosure="withheld", **kwargs):
    description = "some rows" if disclosure == "description" else None
    return PublicReport.of(report(*args, **kwargs), disclosure, description)


def relearning(num_forget_examples=None):
    curves = {"after_repair": (0.1234, 0.8), "reference": (0.1111, 0.5)}
    found = RelearningResult((0, 1), 1e-3, "accuracy", curves, num_forget_examples=num_forget_examples)
    return replace(found, sample=found)
