# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import importlib
import math
import re
from dataclasses import replace

import jinja2
import pytest
from huggingface_hub import ModelCard

from hf_deepclean import PublicReport, UnlearningCard
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.fisher.checks import FISHER_TYPES
from hf_deepclean.publishing.card import _template
from hf_deepclean.publishing.card_metadata import PIPELINES
from hf_deepclean.publishing.redaction import FORGET_DISCLOSURES
from hf_deepclean.report import base_card
from hf_deepclean.reset.values import RESET_VALUES
from hf_deepclean.selection.search import ResetTrial, SelectionSearch
from tests.card_checks import assert_is_a_valid_card, numbers_missing_in
from tests.hub.front_matter import PIPELINE_TAGS
from tests.publishing.reports import relearning, report, split, stage, text_split, with_sample


PICTURES = ["results.png", "loss.png", "reset_share.png", "fisher_plane.png", "gamma.png", "relearning.png"]


def public(disclosure="withheld", *args, **kwargs):
    description = "every picture of a cat" if disclosure == "description" else None
    return PublicReport.of(report(*args, **kwargs), disclosure, description, commitment="cd" * 32)


def bare():
    """A run that measured only the forget and the retain data."""
    stages = {"before": with_sample(StageResult({"forget": split(50), "retain": split(200)}))}
    return PublicReport.of(report(stages=stages | {"after_repair": stages["before"]}), "withheld")


def measured(disclosure="withheld", num_forget=400):
    """A run with all further measurements."""
    stages = {f"{name}_{bits}_bits": stage(num_forget) for name in ("after_repair", "reference") for bits in (4, 8)}
    further = {"retain": relearning(), "few_forget": relearning(10)}
    changes = {"relearning": relearning(), "further_relearning": further}
    return public(disclosure, num_forget, stages=report(num_forget).stages | stages, **changes)


def reports():
    yield from (measured(disclosure) for disclosure in FORGET_DISCLOSURES)
    yield measured("withheld", 12)
    yield replace(measured(), relearning=None)
    yield from (public(disclosure, make=make) for disclosure in FORGET_DISCLOSURES for make in (split, text_split))
    yield public("withheld", 12)
    yield public("size", 1, 1)
    yield bare()
    yield replace(public(), plane=None, settings={"reset_scope": "adapter", "max_steps": 7})


def test_a_figure_without_an_interval_has_too_few_rows_unless_it_is_a_metric_of_the_owners():
    text = str(UnlearningCard.from_report(public(), repo_id="me/clean-model"))
    rows = [line for line in text.splitlines() if line.startswith("| forget mean loss |")]
    assert len(rows) == 1 and rows[0].count("(too few rows)") == 3
    assert not [line for line in text.splitlines() if line.startswith("|") and "f1" in line and "too few" in line]
    overflown = public(make=lambda number: text_split(number, math.inf))
    assert "| inf | inf | inf |" in str(UnlearningCard.from_report(overflown))


@pytest.mark.parametrize("record", list(reports()))
@pytest.mark.parametrize("plots", [[], PICTURES])
def test_every_card_is_valid_and_every_number_on_it_is_in_the_report(record, plots):
    card = UnlearningCard.from_report(record, repo_id="me/clean-model", plots=plots)
    assert_is_a_valid_card(str(card))
    assert numbers_missing_in(card, record.to_dict()) == set()


def test_a_number_that_is_not_in_the_report_would_be_found():
    record = public()
    card = UnlearningCard.from_report(record)
    assert numbers_missing_in(f"{card}\nIn fact it was 61.7 %.", record.to_dict()) == {61.7}


@pytest.mark.parametrize(("name", "values"), [("fisher_type", FISHER_TYPES), ("reset_value", RESET_VALUES)])
def test_every_estimator_and_every_reset_value_has_words_of_its_own(name, values):
    record = public()
    reports = [replace(record, settings=record.settings | {name: value}) for value in values]
    assert len({str(UnlearningCard.from_report(report)) for report in reports}) == len(values)


def test_a_card_tells_that_a_natural_reset_moved_all_weights_and_that_a_repair_followed_only_if_needed():
    record = public("size")
    settings = record.settings | {"reset_value": "natural", "pretrained_hub_id": "me/base"}
    natural = str(UnlearningCard.from_report(replace(record, settings=settings)))
    assert "All weights that matter to the data to forget were selected (rule `adaptive`)." in natural
    assert "checkpoint before fine-tuning, [me/base](https://huggingface.co/me/base)." in natural
    assert "repaired, only if the retained data had lost more than two points, by" in natural
    assert "a fifth of the learning rate 0.0001" in natural and "were reset to" not in natural
    withheld = public()
    withheld = replace(withheld, settings=withheld.settings | {"reset_value": "natural", "max_steps": 7})
    text = str(UnlearningCard.from_report(withheld))
    assert "were selected.\n3. These" in text and "They were repaired by training" in text and "7 steps" in text
    for card in (natural, text):
        assert_is_a_valid_card(card)


def test_nothing_can_be_left_undefined():
    with pytest.raises(jinja2.UndefinedError):
        _template().render(report=public())


def test_what_was_not_measured_is_called_so():
    text = str(UnlearningCard.from_report(bare()))
    for line in (
        "the target of every figure. It was **not measured**",
        "drawn at random: **not measured**",
        "Membership of the forgotten data in the training data: **not measured**",
        "Test data that the model was not trained on: **not measured**",
        "Training on the forgotten data again: **not measured**",
        "Original model: [me/old](https://huggingface.co/me/old)",
    ):
        assert line in text, line
    assert "Results at other thresholds: **not measured**" in str(UnlearningCard.from_report(public("size")))
    full = str(UnlearningCard.from_report(public()))
    assert "**its value is the target of every figure**" in full
    assert "data in the training data: **not" not in full
    assert "cd" * 32 in full


def test_further_measurements_are_shown_and_no_longer_called_missing():
    text = str(UnlearningCard.from_report(measured(), plots=PICTURES))
    assert "over the steps of further trainings](plots/relearning.png)" in text
    assert text.count("| after repair | 12 % | 80 % |") == 3
    assert text.count("At most, 28 percentage points more came back than in the reference; 0 is the target.") == 3
    assert "trained on *retained data alone*, at a learning rate of 0.001" in text
    assert "batches of *a few of them* (at most 10) and of retained data" in text
    # The table of results has no further columns.
    results, rounded = (part.split("\n|---|")[0] for part in text.split("\n| | n | ")[1:])
    assert results == "before | after repair | reference |"
    assert rounded.startswith("after repair | after repair, 4 bits | after repair, 8 bits | reference | reference, 4")
    assert "quantisation of other kinds than that measured above." in text
    few = str(UnlearningCard.from_report(measured(num_forget=12)))
    assert "Training on the forgotten data again: **withheld**" in few
    assert "retained data alone" not in few
    assert "| forget " not in few
    assert "### With rounded weights" in few
    assert "quantisation, whose effect on the forgotten data is withheld here." in few
    for line in ("### With rounded weights", "retained data alone", "more came back than in the reference"):
        assert line not in str(UnlearningCard.from_report(public()))
    assert "quantisation, which was not measured here" in str(UnlearningCard.from_report(public()))


def test_what_is_withheld_is_called_so():
    text = str(UnlearningCard.from_report(public("withheld", 12)))
    assert "Results on the data to forget: **withheld**" in text
    assert "Seed: withheld" in text
    assert "| forget " not in text
    assert "forget accuracy | 50 |" in str(UnlearningCard.from_report(public()))
    assert "forget accuracy | 400 |" in str(UnlearningCard.from_report(public("size")))
    assert "every picture of a cat" in str(UnlearningCard.from_report(public("description")))


def test_the_claim_is_no_wider_than_what_was_done():
    text = str(UnlearningCard.from_report(public("size")))
    assert "there is no formal guarantee, and nothing on this card is a proof of deletion" in text
    assert "250 of 1,000 weights in scope (25 %)" in text
    assert "Outside the selection 0 of 750 weights and 0 of 12 buffer entries changed" in text
    assert "no more than 250 entries differ" in text


def test_what_a_card_imports_is_there():
    text = str(UnlearningCard.from_report(public()))
    found = re.findall(r"^from (hf_deepclean\S*) import (.+)$", text, re.MULTILINE)
    assert [module for module, _ in found] == [
        "hf_deepclean",
        "hf_deepclean.evaluation.predictions",
        "hf_deepclean.evaluation.results",
    ]
    for module, names in found:
        assert all(callable(getattr(importlib.import_module(module), name)) for name in names.split(", "))


def test_the_path_that_older_cards_import_from_leads_to_the_same_functions():
    from hf_deepclean.evaluation import examples, predictions, results

    for name in ("predict_examples", "predict_batches", "join_predictions", "ExamplePredictions"):
        assert getattr(examples, name) is getattr(predictions, name)
    assert examples.summarize_predictions is results.summarize_predictions
    assert set(examples.__all__) == {
        *("predict_examples", "predict_batches", "join_predictions", "ExamplePredictions", "summarize_predictions")
    }


def test_the_metadata_are_those_of_the_hub():
    data = UnlearningCard.from_report(public(), repo_id="me/clean").data.to_dict()
    assert data["base_model"] == "me/old"
    assert data["base_model_relation"] == "finetune"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "image-classification"
    assert data["tags"] == ["machine-unlearning", "fisher-unlearning", "hf_deepclean"]
    results = data["model-index"][0]["results"]
    assert {result["dataset"]["type"] for result in results} == {"retain", "eval"}
    retain = results[0]["metrics"][0]
    assert retain["type"] == "accuracy" and retain["value"] == 0.5 and retain["args"]["num_examples"] == 200
    assert "num_reset" not in data["unlearning"]
    told = UnlearningCard.from_report(public("size"), repo_id="me/clean").data.to_dict()
    assert told["unlearning"]["num_reset"] == 250
    adapter = replace(public(), settings={"reset_scope": "adapter"}, model_class="LlamaForCausalLM")
    data = UnlearningCard.from_report(adapter).data
    assert (data.library_name, data.pipeline_tag, data["base_model_relation"]) == (
        "peft",
        "text-generation",
        "adapter",
    )


def test_every_pipeline_of_a_card_is_one_that_the_hub_takes():
    assert PIPELINES.keys() <= set(PIPELINE_TAGS) == base_card._PIPELINES


@pytest.mark.parametrize("model_class", ["T5ForConditionalGeneration", "BartForConditionalGeneration"])
def test_the_card_of_an_encoder_and_decoder_is_valid(model_class):
    card = UnlearningCard.from_report(replace(public(), model_class=model_class))
    assert_is_a_valid_card(str(card))
    assert card.data.pipeline_tag is None


def test_a_model_is_not_its_own_base():
    assert UnlearningCard.from_report(public(), repo_id="me/old").data.base_model is None


def test_fields_of_the_model_from_before_are_kept_but_for_its_data_and_results():
    before = {
        "license": "mit",
        "language": ["de"],
        "tags": ["birds"],
        "thumbnail": "a.png",
        "pipeline_tag": "image-feature-extraction",
        "datasets": ["me/birds"],
        "widget": [{"text": "a name"}],
        "new_version": "me/newer",
        "extra_gated_prompt": "Who are you?",
        "model-index": [{"name": "old", "results": []}],
    }
    card = UnlearningCard.from_report(public(), base_metadata=before)
    data = card.data.to_dict()
    assert data["license"] == "mit" and data["language"] == ["de"] and data["thumbnail"] == "a.png"
    assert data["tags"][:2] == ["birds", "machine-unlearning"]
    assert data["pipeline_tag"] == "image-feature-extraction"
    assert data["extra_gated_prompt"] == "Who are you?"
    assert data["base_model"] == "me/old"
    assert not {"datasets", "widget", "new_version"} & data.keys()
    asked = UnlearningCard.from_report(public(), base_metadata=before, gated_prompt="Why?")
    assert asked.data["extra_gated_prompt"] == "Why?"


def test_the_fields_of_an_older_report_are_checked_too(caplog):
    before = {"license": "mit\n---\n# <b>x</b>", "language": False, "self": 1, "to_yaml": 2, 3: 4, "tags": "birds"}
    card = UnlearningCard.from_report(bare(), base_metadata=before | {"base_model": "/home/someone/x"})
    assert_is_a_valid_card(str(card))
    assert card.data.to_dict()["tags"][0] == "birds"
    assert not {"license", "language", "self", "to_yaml", 3} & card.data.to_dict().keys()
    assert "someone" not in str(card) and "<b>" not in str(card)
    (record,) = caplog.records
    assert "'license', 'language', 'base_model', whose values the Hub does not take" in record.message


def test_a_card_knows_whether_a_hand_has_changed_it(tmp_path):
    card = UnlearningCard.from_report(public())
    card.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert UnlearningCard.is_generated(text)
    assert UnlearningCard.is_generated(text.replace("\n", "\r\n"))
    assert not UnlearningCard.is_generated(text.replace("not measured", "measured"))
    assert not UnlearningCard.is_generated(text + "\nMy own words.\n")
    assert not UnlearningCard.is_generated("---\nlicense: mit\n---\n\n# My model\n")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == card.data.to_dict()


def test_an_infinite_result_is_shown_but_not_in_the_metadata():
    broken = stage(400, make=lambda number: text_split(number, math.inf))
    stages = {"before": stage(400, make=text_split), "after_repair": broken}
    record = PublicReport.of(report(stages=stages), "withheld")
    card = UnlearningCard.from_report(record)
    assert_is_a_valid_card(str(card))
    assert "| inf |" in str(card)
    assert "perplexity" not in {
        metric["type"] for r in card.data.to_dict()["model-index"][0]["results"] for metric in r["metrics"]
    }


@pytest.mark.parametrize("losses", [None, (0.0, 1.0, 2.0)])
def test_a_card_tells_of_the_penalty_that_the_repair_had_and_of_none_that_it_had_not(losses):
    trial = ResetTrial(250, 1.2, 0.1, 0.8)
    search = SelectionSearch("unseen", "accuracy", 0.1, 0.5, trial, (trial,), 0, {"forget": 64}, losses)
    penalised = report(search=search, settings={"reset_value": "zero", "forget_penalty": 1.0})
    text = str(UnlearningCard.from_report(PublicReport.of(penalised)))
    assert ("a penalty on them was added (weight 1)" in text) == (losses is not None)
    splits = {name: stage.splits for name, stage in penalised.stages.items()}
    few = {name: parts | {"forget": replace(parts["forget"], num_examples=12)} for name, parts in splits.items()}
    stages = {name: replace(stage, splits=few[name]) for name, stage in penalised.stages.items()}
    few = replace(penalised, stages=stages)
    text = str(UnlearningCard.from_report(PublicReport.of(few, "size")))
    assert ("(weight 1), which holds them from both sides" in text) == (losses is not None)
    assert "from both sides" not in str(UnlearningCard.from_report(PublicReport.of(few)))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_card_and_report_tell_which_rows_the_later_epochs_of_the_repair_read(share):
    settings = {"reset_value": "zero", "num_train_epochs": 3, "hard_example_share": share}
    ordered = report(settings=settings)
    text = str(UnlearningCard.from_report(PublicReport.of(ordered)))
    assert ": 3 epochs" in text
    again = PublicReport.of(replace(ordered, retained_by_round=(0.5, 0.9)), "size")
    assert ": 2 times 3 epochs" in str(UnlearningCard.from_report(again))
    assert ("only on the 50 % of the retained data with the largest losses" in text) == (share < 1)
    assert ("read 50 % of the retained data, those with the largest losses" in str(ordered)) == (share < 1)
