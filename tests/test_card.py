# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from huggingface_hub import ModelCard

from hf_deepclean import create_model_card
from hf_deepclean.evaluation.examples import ClassResult, SplitResult
from hf_deepclean.evaluation.membership import MembershipAttack
from hf_deepclean.report import IntegrityResult, SelectionResult, StageResult, UnlearningReport


# What must not be on a card, put into every place of a report that can hold it.
CANARIES = ("Zweifelsfrei", "31337", "4242")


def report():
    forget = SplitResult(
        31337, 0.2512, (0.1,) * 9, 0.33333, (0.30123, 0.36123), {"Zweifelsfrei": ClassResult(31337, 0.5)}
    )
    other = SplitResult(4242, 0.5, (0.1,) * 9, 0.98765, (0.9, 0.99), {"Zweifelsfrei": ClassResult(4242, 0.5)})
    stage = StageResult(
        {"forget": forget, "retain": other, "eval_without_Zweifelsfrei": other, "eval_b": other, "unseen": other},
        MembershipAttack(0.51234, (0.45678, 0.56789), 0.0123, 31337, 4242),
    )
    return UnlearningReport(
        "BertForSequenceClassification",
        {
            "reset_value": "zero",
            "learning_rate": 1e-4,
            "pretrained_model": "/home/Zweifelsfrei/model",
            "target_modules": ["Zweifelsfrei"],
        },
        SelectionResult("gamma", 1.5, 1000, 250, 3, {"a": (250, 1000)}),
        {"forget": 31337, "retain": 4242},
        {"before": stage, "after_repair": stage},
        IntegrityResult(249, 750, 12, "ab" * 32),
        {"forget Fisher": 31337.0},
        {"torch": "2.13"},
        seed=31337,
        fisher_fallback={"Zweifelsfrei.weight": "no rule"},
    )


def test_nothing_on_the_card_identifies_the_forgotten_data():
    card = str(create_model_card(report()))
    for canary in CANARIES:
        assert canary not in card.replace(",", "")
    assert "33.3" not in card
    assert "| forget accuracy | 33 % | 33 % |" in card
    assert "| retain accuracy | 98.8 % | 98.8 % |" in card
    assert "| eval 1 accuracy | 98.8 % | 98.8 % |" in card
    assert "| eval 2 accuracy |" in card


def test_the_card_claims_no_more_than_is_so():
    card = str(create_model_card(report()))
    assert "**approximate**" in card
    assert "nothing on this card is a proof of deletion" in card
    assert "No reference model" in card
    assert "250 of 1,000 in scope (25.00 %)" in card
    assert "0 of 750 weights and 0 of 12 buffer entries changed" in card
    assert "learning rate of the repair: `0.0001`" in card
    stages = report().stages
    bare = replace(stages["before"], membership=None)
    unmeasured = str(create_model_card(replace(report(), stages={"before": bare, "after_repair": bare})))
    assert "not measured" in unmeasured
    full = str(create_model_card(replace(report(), stages=stages | {"reference": bare, "control_after_repair": bare})))
    assert "The target of every figure is that of the reference" in full
    assert "drawn at random" in full


def test_the_metadata_are_those_of_the_hub(tmp_path):
    create_model_card(report()).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "transformers"
    assert data.tags[0] == "machine-unlearning"
    adapted = replace(report(), settings={"reset_scope": "adapter"})
    assert create_model_card(adapted).data.library_name == "peft"
