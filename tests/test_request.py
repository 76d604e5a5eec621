# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean import FisherUnlearningConfig, request
from hf_deepclean.request import UnlearningRequest, name_splits
from tests import tiny


class Untouched(torch.utils.data.Dataset):
    """A data set that nothing may read."""

    def __len__(self):
        pytest.fail("counted the rows")

    def __getitem__(self, index):
        pytest.fail("read a row")


def splits(**others):
    digits = tiny.digits()
    return {"forget": digits.select(range(8)), "retain": digits.select(range(8, 24)), **others}


def config(folder, **kwargs):
    return FisherUnlearningConfig(str(folder), **({"gamma": 1.0, "use_cpu": True, "report_to": "none"} | kwargs))


def request_of(folder, model=None, data=None, options=None, **kwargs):
    model = tiny.vit(num_labels=10) if model is None else model
    return UnlearningRequest.of(model, config(folder, **(options or {})), data or splits(), **kwargs)


def test_everything_is_checked_once_and_in_order(tmp_path, monkeypatch):
    order = [
        *("check_fisher_type", "check_devices", "check_scope_of_model", "load_model", "check_model"),
        *("check_pretrained_model", "check_dataset", "check_sequence_lengths", "check_dataset"),
        *("check_sequence_lengths", "check_requests", "check_kept_fisher", "check_overlaps", "load_model"),
        *("check_reference", "check_relearning", "check_quantization"),
    ]
    calls = []

    def recorded(name, check):
        def record(*args, **kwargs):
            calls.append(name)
            return args[0] if name == "load_model" else None

        monkeypatch.setattr(request, name, record)

    for name in set(order):
        recorded(name, getattr(request, name))
    options = {"pretrained_model": "base", "relearning_steps": 1, "quantization_bits": [4]}
    monkeypatch.setattr(request, "_load_fisher", lambda fisher: fisher)
    reference = tiny.vit(num_labels=10)
    found = request_of(tmp_path, options=options, kept_fisher="kept", reference_model=reference, requests={"a": [0]})
    assert calls == order
    assert (found.kept_fisher, found.reference_model, found.requests) == ("kept", reference, {"a": [0]})


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: tiny.vit().to("meta"), {}, "is on the meta device"),
        (tiny.vit, {"target_modules": ["clasifier"]}, "matches no module"),
        (tiny.vit, {"reset_scope": "adapter"}, "which has none"),
        (tiny.vit, {"pretrained_model": "nowhere"}, "nowhere"),
        (lambda: "nowhere", {}, "cached files"),
    ],
    ids=["weights", "scope", "adapter", "checkpoint", "path"],
)
def test_no_data_are_read_if_the_model_is_refused(tmp_path, model, options, message):
    data = {"forget": Untouched(), "retain": Untouched()}
    with pytest.raises((ValueError, OSError), match=message):
        request_of(tmp_path, model(), data, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fisher_type": "expected"}, "`fisher_type='expected'`"), ({"label_smoothing_factor": 0.1}, "Leave one of the")],
)
def test_no_model_is_loaded_if_the_options_do_not_fit_the_likelihood(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        request_of(tmp_path, "nowhere", options=options, log_likelihood_func=lambda outputs, labels: outputs.logits)


def test_no_reference_is_loaded_if_the_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`forget_dataset` is empty"):
        request_of(tmp_path, data=splits(forget=tiny.digits().select([])), reference_model="nowhere")
    with pytest.raises(ValueError, match="8 of 8 rows of `forget_dataset` are in `retain_dataset`"):
        request_of(tmp_path, data=splits(retain=tiny.digits().select(range(20))), reference_model="nowhere")


def test_a_stream_to_retain_needs_a_number_of_steps_and_the_order_of_its_rows(tmp_path):
    data = splits(retain=tiny.digits().select(range(8, 24)).to_iterable_dataset())
    with pytest.raises(ValueError, match="Set `max_steps`"):
        request_of(tmp_path, data=data)
    with pytest.raises(ValueError, match="`hard_example_share=0.5` reads rows again"):
        request_of(tmp_path, data=data, options={"max_steps": 3, "gamma": None, "hard_example_share": 0.5})
    for options in ({"max_steps": 3}, {"num_train_epochs": 0}):
        assert request_of(tmp_path, data=data, options=options).forget_share is None


def test_a_request_has_the_model_and_the_source_that_it_was_given_as(tmp_path):
    model = tiny.vit(num_labels=10)
    model.save_pretrained(tmp_path / "model")
    given = request_of(tmp_path / "a", model)
    assert given.model is given.source is model and not given.has_adapter
    loaded = request_of(tmp_path / "a", str(tmp_path / "model"))
    assert loaded.source == str(tmp_path / "model")
    assert torch.equal(loaded.model.classifier.weight, model.classifier.weight)


def test_the_reset_value_is_that_of_the_options_or_fits_the_model(tmp_path):
    assert request_of(tmp_path).reset_value == "zero"
    assert request_of(tmp_path, options={"reset_value": "init"}).reset_value == "init"


def test_the_share_of_the_forget_set_is_that_of_all_training_data(tmp_path):
    assert request_of(tmp_path).forget_share == 8 / 24


def test_the_scope_is_that_of_the_model_as_it_is_now(tmp_path):
    found, args = request_of(tmp_path), config(tmp_path, exclude_modules=["vit"])
    found.model.classifier.bias = torch.nn.Parameter(torch.zeros(10))
    scope = found.parameters_in_scope(args)
    assert scope.keys() == {"classifier.weight", "classifier.bias"}
    assert scope["classifier.bias"] is found.model.classifier.bias


def test_measurements_compare_the_reference_if_there_is_one(tmp_path):
    assert list(request_of(tmp_path).models_to_compare) == ["after_repair"]
    reference = tiny.vit(num_labels=10)
    found = request_of(tmp_path, reference_model=reference)
    assert found.models_to_compare == {"after_repair": found.model, "reference": reference}


def test_data_sets_are_named_by_what_they_are_for():
    assert name_splits("f", "r", None, None) == {"forget": "f", "retain": "r"}
    assert name_splits("f", "r", "e", "u") == {"forget": "f", "retain": "r", "eval": "e", "unseen": "u"}
    several = name_splits("f", "r", {"one": 1, "two": 2}, None)
    assert several == {"forget": "f", "retain": "r", "eval_one": 1, "eval_two": 2}
