# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datetime
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding

from hf_deepclean.state.fingerprints import Fingerprints
from tests.state import own_functions
from tests.state.own_functions import Metric, Rate, examples, make_collator, word_tokenizer


ROOT = Path(__file__).parents[2]
CODE = """
import json
from hf_deepclean.state.fingerprints import Fingerprints
from tests.state.own_functions import examples
print(json.dumps({name: Fingerprints().of(value) for name, value in examples().items()}))
"""


def of(value):
    return Fingerprints().of(value)


def test_fingerprints_are_the_same_in_every_process_and_for_every_hash_seed():
    here = {name: of(value) for name, value in examples().items()}
    assert here == {name: of(value) for name, value in examples().items()}
    assert len(set(here.values())) == len(here)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "HF_HUB_OFFLINE": "1"}
    there = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(there.stdout) == here


def with_other_code():
    def collate(rows):
        return {"x": torch.stack(rows) + 3.0}

    return collate


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (make_collator(3.0), make_collator(4.0)),
        (make_collator(3.0), make_collator(3.0, power=3)),
        (with_other_code(), make_collator(3.0)),
        (Metric({"a": 1}), Metric({"a": 2})),
        (Rate(3), Rate(4)),
        (Rate(3), type("Rate", (Rate,), {"share": 0.25})(3)),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x, y=1: x, lambda x, y=2: x),
        (np.float32(1), np.float64(1)),
        (torch.zeros(2), torch.zeros(3)),
        (torch.nn.Dropout(0.1), torch.nn.Dropout(0.2)),
        ({"a": 1}, {"a": True}),
        (DataCollatorWithPadding(word_tokenizer(["a b"])), DataCollatorWithPadding(word_tokenizer(["a c"]))),
        (
            DataCollatorWithPadding(word_tokenizer(["a b"])),
            DataCollatorWithPadding(word_tokenizer(["a b"]), pad_to_multiple_of=8),
        ),
    ],
)
def test_other_code_values_classes_or_attributes_have_another_fingerprint(value, other):
    assert of(value) != of(other)


def test_a_function_depends_on_the_globals_and_functions_that_it_reads_and_on_no_others(monkeypatch):
    before = of(make_collator(3.0))
    with monkeypatch.context() as patch:
        patch.setattr(own_functions.OPTIONS, "resume", True)
        assert of(make_collator(3.0)) == before
        patch.setattr(own_functions.OPTIONS, "scale", 3.0)
        assert of(make_collator(3.0)) != before
    with monkeypatch.context() as patch:
        patch.setattr(own_functions.SETTINGS, "folder", "/another")
        assert of(make_collator(3.0)) == before
        patch.setattr(own_functions.SETTINGS, "offset", 3.0)
        assert of(make_collator(3.0)) != before
    with monkeypatch.context() as patch:
        patch.setattr(own_functions, "NAMES", {"one"})
        assert of(make_collator(3.0)) != before
    with monkeypatch.context() as patch:
        patch.setattr(own_functions, "scale_of", lambda name: 1.0)
        assert of(make_collator(3.0)) != before
    assert of(make_collator(3.0)) == before


def test_the_place_of_a_function_and_the_order_of_a_dictionary_do_not_matter():
    def made(source):
        module = types.ModuleType("made")
        exec(compile(source, "made.py", "exec"), vars(module))
        return module.f

    assert of(made("def f(x):\n    return x + 1")) == of(made("\n\n# a comment\ndef f(x):\n    return x + 1  # so"))
    assert of({"a": 1, "b": 2}) == of({"b": 2, "a": 1})


def test_calls_and_the_place_that_it_was_loaded_from_do_not_change_a_tokenizer(tmp_path):
    tokenizer = word_tokenizer(["a b c"])
    before = of(tokenizer)
    tokenizer(["a b", "c"], padding="max_length", max_length=8, truncation=True)
    assert of(tokenizer) == before
    tokenizer.save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "b")
    assert of(type(tokenizer).from_pretrained(tmp_path / "a")) == of(type(tokenizer).from_pretrained(tmp_path / "b"))


def test_a_time_of_this_process_is_no_setting_and_other_numbers_are():
    assert of(time.time()) == of(datetime.datetime.now())
    for value in (time.time() - 1e6, 0.5, 1e3, 3600.25, int(time.time()), time.time() + 60):
        assert of(value) != of(time.time())


class Raising:
    def __init__(self):
        self.generator = np.random.default_rng()
        self.itself = self

    @property
    def __wrapped__(self):
        raise RuntimeError("no attribute today")


def test_what_cannot_be_looked_into_is_named_and_ends_no_run():
    fingerprints = Fingerprints()
    assert fingerprints.of([np.random.default_rng()]) == fingerprints.of([np.random.default_rng()])
    fingerprints.of([Raising(), (number for number in range(3)), open(__file__)])  # noqa: SIM115
    assert fingerprints.opaque == {
        "numpy.random._generator.Generator",
        "tests.state.test_fingerprints.Raising",
        "builtins.generator",
        "_io.TextIOWrapper",
    }


def test_known_objects_and_records_of_arguments_count_by_their_names():
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert of(model) != of(other)
    assert Fingerprints({"model": model}).of([model]) == Fingerprints({"model": other}).of([other])
