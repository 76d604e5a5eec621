# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Advice to merge an adapter leads to a run on the whole model. Frozen weights are never out of scope in silence."""

import logging

import pytest
from peft import PeftModel

from hf_deepclean.publishing.card import UnlearningCard
from hf_deepclean.publishing.public_report import PublicReport
from tests import tiny
from tests.models.adapters.examples import adapted, on_disk, scaled, unlearner_for


def merge_as_told(model):
    """What the messages tell the user to do."""
    model = model.merge_and_unload()
    model.requires_grad_(True)
    return model


def loaded_by_transformers(tmp_path):
    folder = on_disk(tmp_path)
    return type(tiny.bert()).from_pretrained(folder), folder


@pytest.mark.parametrize("kind", ["adapter on a base", "loaded by transformers", "another method", "shared weights"])
def test_the_advice_to_merge_gives_a_run_on_all_weights(kind, tmp_path, caplog):
    reset_scope = "full"
    if kind == "loaded by transformers":
        model, folder = loaded_by_transformers(tmp_path)
        advised = PeftModel.from_pretrained(tiny.bert(), folder)
    else:
        model = advised = scaled() if kind == "another method" else adapted()
        reset_scope = "adapter" if kind == "another method" else "full"
    if kind == "shared weights":
        reset_scope = "adapter"
        one, two = (m for n, m in model.named_parameters() if n.endswith("query.lora_A.default.weight"))
        two.data = one.data
    with pytest.raises(ValueError, match=r"merge_and_unload.*`model.requires_grad_\(True\)`.*`reset_scope='full'`"):
        unlearner_for(tmp_path / "clean", model, reset_scope=reset_scope)
    with caplog.at_level(logging.WARNING):
        unlearner = unlearner_for(tmp_path / "clean", merge_as_told(advised), reset_scope="full")
    assert "frozen" not in caplog.text
    report = unlearner.unlearn()
    assert report.selection.num_in_scope == sum(parameter.numel() for parameter in unlearner.model.parameters())
    assert report.selection.frozen_share == 0


def test_a_merged_model_that_peft_left_frozen_is_told_by_warning_preview_report_and_card(tmp_path, caplog):
    model = adapted().merge_and_unload()
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    expected = frozen / sum(parameter.numel() for parameter in model.parameters())
    with caplog.at_level(logging.WARNING):
        unlearner = unlearner_for(tmp_path / "clean", model, reset_scope="full")
    sentence = f"{int(1000 * expected) / 10:g} % of the weights are frozen"
    assert caplog.text.count(sentence) == 1
    assert sentence in str(unlearner.preview())
    report = unlearner.unlearn()
    assert report.selection.frozen_share == pytest.approx(expected)
    assert sentence in str(report)
    card = str(UnlearningCard.from_report(PublicReport.of(report)))
    assert f"{100 * expected:.2f} % of the weights were frozen and out of scope" in card


def test_the_base_of_an_adapter_in_scope_is_not_told_as_frozen(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        report = unlearner_for(tmp_path / "clean", adapted()).unlearn()
    assert report.selection.frozen_share == 0 and "are frozen" not in caplog.text + str(report)
