# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Kept Fishers of other data, of other weights and of other estimators, and damaged ones, passed for the right one."""

import json
import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments

from hf_deepclean import (
    FisherCallback,
    FisherDiagonal,
    FisherUnlearner,
    classification_log_likelihood,
    weights_fingerprint,
)
from hf_deepclean.runtime.sealed_files import write_tensors
from tests import tiny
from tests.unlearner.runs import config, vit


TRAIN, FORGET, RETAIN = range(40), range(8), range(8, 40)


def rows(places):
    return tiny.digits().select(places)


def own_likelihood(outputs, labels):
    return classification_log_likelihood(outputs, labels) / 2


def unlearner_for(folder, kept, forget=None, retain=None, **kwargs):
    parts = {"forget_dataset": forget or rows(FORGET), "retain_dataset": retain or rows(RETAIN)}
    likelihood = {"log_likelihood_func": kwargs.pop("log_likelihood_func", None)}
    args = config(folder / "clean", dress_rehearsal=False, **kwargs)
    return FisherUnlearner(vit(), args, kept_fisher=kept, **parts, **likelihood)


@pytest.fixture(scope="module")
def fisher():
    """The Fisher of the training data at the weights of the model."""
    args = config("unused", per_device_fisher_batch_size=40)
    unlearner = FisherUnlearner(vit(), args, forget_dataset=rows(FORGET), retain_dataset=rows(RETAIN))
    return replace(unlearner.compute_fisher(rows(TRAIN)), weights_fingerprint=weights_fingerprint(vit()))


@pytest.fixture(scope="module")
def kept(tmp_path_factory, fisher):
    """The same, kept in several files."""
    folder = tmp_path_factory.mktemp("kept") / "fisher"
    fisher.save_pretrained(folder, max_shard_size=4000)
    return folder


def changed(column, change):
    """The retained rows with one changed."""
    found = rows(RETAIN).with_format("numpy")[:]
    found[column][3] = change(found[column][3])
    return datasets.Dataset.from_dict({name: list(values) for name, values in found.items()}).with_format("torch")


OTHER_DATA = {
    "other rows": lambda: {"forget": rows(range(50, 58)), "retain": rows(range(58, 90))},
    "one other row": lambda: {"retain": rows([*range(8, 39), 60])},
    "a row twice for another": lambda: {"retain": rows([*range(8, 39), 38])},
    "one other label": lambda: {"retain": changed("labels", lambda label: (label + 1) % 10)},
    "one other pixel": lambda: {"retain": changed("pixel_values", lambda image: image + (image == image.max()))},
    "a forgotten row for a retained one": lambda: {"forget": rows([*range(1, 8), 60])},
    "other columns": lambda: {"retain": rows(RETAIN).rename_column("labels", "target")},
    "other rows, not stored": lambda: {"retain": Subset(rows(range(90)), range(50, 82))},
}


@pytest.mark.parametrize("source", ["folder", "file"])
def test_a_kept_fisher_of_other_data_of_the_same_size_is_refused(tmp_path, attack, fisher, kept, source):
    fisher.save(tmp_path / "fisher.safetensors")
    passed = kept if source == "folder" else tmp_path / "fisher.safetensors"

    def accepted(parts):
        try:
            unlearner_for(tmp_path, passed, **parts)
        except ValueError as refusal:
            assert "kept_fisher" in str(refusal) or "label" in str(refusal)
            return False
        return True

    attempts = {name: accepted(parts()) for name, parts in OTHER_DATA.items()}
    assert attack(f"a kept Fisher is that of the rows at hand ({source})", attempts) == []


SAME_DATA = {
    "another division": lambda: {"forget": rows(range(20, 40)), "retain": rows(range(20))},
    "another order": lambda: {"retain": rows([*reversed(RETAIN)])},
    "another format": lambda: {"retain": rows(RETAIN).with_format(None)},
    "a further column": lambda: {"retain": rows(RETAIN).add_column("person", ["x"] * len(RETAIN))},
    "another name of the labels": lambda: {"retain": rows(RETAIN).rename_column("labels", "label")},
    "other types": lambda: {"retain": changed("labels", np.int32)},
    "a subset of torch": lambda: {"retain": Subset(rows(range(90)), RETAIN)},
}


def test_the_same_rows_are_taken_in_any_order_division_and_form_and_nothing_is_warned_of(tmp_path, kept, caplog):
    for parts in SAME_DATA.values():
        unlearner_for(tmp_path, kept, **parts())
    assert not [message for message in caplog.messages if "kept_fisher" in message]


def without_digests(folder):
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = {k: v for k, v in file.metadata().items() if k not in ("digest", "format", "owner", "data")}
        save_file(tensors, path, metadata)
    index = folder / "fisher.safetensors.index.json"
    record = {k: v for k, v in json.loads(index.read_text()).items() if k not in ("digest", "digests")}
    index.write_text(json.dumps(record))


def test_a_kept_fisher_of_an_earlier_version_is_used_with_one_warning_about_its_rows(tmp_path, kept, caplog):
    folder = shutil.copytree(kept, tmp_path / "old")
    without_digests(folder)
    unlearner_for(tmp_path, folder)
    warned = [message for message in caplog.messages if "rows of `kept_fisher` are not compared" in message]
    assert len(warned) == 1 and "without a digest" in warned[0]
    with pytest.raises(ValueError, match="have 39 rows together"):
        unlearner_for(tmp_path, folder, retain=rows(range(8, 39)))


def test_the_rows_of_a_stream_are_not_compared_and_a_warning_says_so(tmp_path, kept, caplog):
    stream = rows(RETAIN).to_iterable_dataset()
    unlearner_for(tmp_path, kept, retain=stream, max_steps=1)
    assert any("`retain_dataset` is a stream" in message and "kept_fisher" in message for message in caplog.messages)


def test_a_kept_fisher_or_data_that_are_exchanged_after_the_checks_are_refused(tmp_path, attack, fisher):
    other = replace(fisher, data=replace(fisher.data, rows="0" * 32))
    exchanges = {"kept_fisher": other, "forget_dataset": rows(range(50, 58)), "retain_dataset": rows(range(50, 82))}
    attempts = {}
    for name, value in exchanges.items():
        unlearner = unlearner_for(tmp_path, fisher)
        setattr(unlearner, name, value)
        try:
            unlearner.unlearn()
            attempts[name] = True
        except ValueError as refusal:
            assert "is that of other rows" in str(refusal)
            attempts[name] = False
    assert attack("a kept Fisher is that of the rows at hand (exchanged later)", attempts) == []
    assert not (tmp_path / "clean").exists()


def test_a_kept_fisher_of_other_weights_or_of_another_estimator_is_refused(tmp_path, attack, fisher):
    expected = replace(fisher, fisher_type="expected")
    part = replace(fisher, sums=dict(list(fisher.sums.items())[1:]))
    likelihood = replace(fisher, data=replace(fisher.data, likelihood="own_likelihood"))

    def accepted(kept, **kwargs):
        try:
            unlearner_for(tmp_path, kept, **kwargs)
        except ValueError:
            return False
        return True

    attempts = {
        "other weights": accepted(replace(fisher, weights_fingerprint="a" * 64)),
        "weights that it does not say": accepted(replace(fisher, weights_fingerprint=None)),
        "another estimator": accepted(expected),
        "another scope": accepted(part),
        "another scope of the request": accepted(fisher, target_modules=["classifier"]),
        "a likelihood of the caller": accepted(likelihood),
        "a likelihood of the caller in the request": accepted(fisher, log_likelihood_func=own_likelihood),
        "some rows of the request": accepted(fisher, fisher_max_examples=4),
    }
    assert attack("a kept Fisher is that of the model and of the estimator", attempts) == []


def first_shard(folder):
    return min(folder.glob("*.safetensors"))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def zero(folder):
    path = first_shard(folder)
    with safe_open(path, "pt") as file:
        tensors = {name: torch.zeros_like(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, file.metadata())


def zero_and_seal(folder):
    """As a whole file of another Fisher with zeros would be."""
    path = first_shard(folder)
    with safe_open(path, "pt") as file:
        tensors = {name: torch.zeros_like(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        metadata = {k: v for k, v in file.metadata().items() if k not in ("digest", "format", "owner")}
    write_tensors(path, tensors, metadata)


def truncate(folder):
    path = first_shard(folder)
    path.write_bytes(path.read_bytes()[:-40])


def exchange(folder):
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


def from_another(folder, fisher, **changes):
    """A file of the Fisher of other rows at the same weights."""
    other = replace(fisher, sums={name: 2 * total for name, total in fisher.sums.items()}, **changes)
    other.save_pretrained(folder.parent / "another", max_shard_size=4000)
    shutil.copy(first_shard(folder.parent / "another"), first_shard(folder))


def index_without_digests(folder):
    index = folder / "fisher.safetensors.index.json"
    record = {k: v for k, v in json.loads(index.read_text()).items() if k not in ("digest", "digests")}
    index.write_text(json.dumps(record))


def old_files_of_two(folder, fisher):
    from_another(folder, fisher, num_examples=41)
    without_digests(folder)


DAMAGES = {
    "a flipped bit of a sum": lambda folder, _: flip(first_shard(folder), -2),
    "a flipped bit of the metadata": lambda folder, _: flip(first_shard(folder), 40),
    "a flipped bit of the index": lambda folder, _: flip(folder / "fisher.safetensors.index.json", 60),
    "tensors of zeros": lambda folder, _: zero(folder),
    "tensors of zeros with a digest": lambda folder, _: zero_and_seal(folder),
    "a truncated file": lambda folder, _: truncate(folder),
    "a missing file": lambda folder, _: first_shard(folder).unlink(),
    "exchanged files": lambda folder, _: exchange(folder),
    "a file of another Fisher": from_another,
    "a file of a Fisher of other rows": lambda folder, fisher: from_another(
        folder, fisher, data=replace(fisher.data, rows="0" * 32)
    ),
    "an index without digests": lambda folder, _: index_without_digests(folder),
    "old files of two Fishers": old_files_of_two,
    "one file in place of all": lambda folder, _: (
        (folder / "fisher.safetensors.index.json").unlink(),
        first_shard(folder).rename(folder / "fisher.safetensors"),
    ),
}


def test_a_damaged_or_mixed_kept_fisher_is_refused(tmp_path, attack, fisher, kept):
    attempts = {}
    for name, damage in DAMAGES.items():
        folder = shutil.copytree(kept, tmp_path / name / "fisher")
        damage(folder, fisher)
        try:
            FisherDiagonal.from_pretrained(folder).check_fits(vit(), fisher.sums.keys(), "empirical")
            attempts[name] = True
        except (ValueError, FileNotFoundError):
            attempts[name] = False
    assert attack("damage to a kept Fisher is seen", attempts) == []


def test_the_fishers_of_two_parts_say_whose_rows_they_are_together(fisher, tmp_path):
    unlearner = unlearner_for(tmp_path, fisher)
    forget, retain = (unlearner.compute_fisher(rows(places)) for places in (FORGET, RETAIN))
    assert (forget + retain).data == fisher.data
    assert (fisher - forget).data == retain.data
    assert (fisher - replace(forget, data=None)).data is None


def test_what_the_callback_keeps_says_whose_rows_it_is_of(tmp_path):
    args = TrainingArguments(str(tmp_path), max_steps=1, report_to="none", disable_tqdm=True)
    trainer = Trainer(vit(), args, train_dataset=rows(TRAIN))
    trainer.add_callback(FisherCallback(trainer))
    trainer.train()
    data = FisherDiagonal.from_pretrained(tmp_path / "_fisher").data
    data.check_rows({"a": rows(RETAIN), "b": rows(FORGET)})
    with pytest.raises(ValueError, match="is that of other rows"):
        data.check_rows({"a": rows(RETAIN), "b": rows(range(1, 9))})


def test_the_digest_of_rows_stays_what_kept_fishers_of_this_version_hold(fisher):
    """If it changes, its version must change too: else every kept Fisher would be taken for one of other rows."""
    table = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [0, 1], "text": ["a", "b"]})
    assert fisher.data.version == 2
    expected = "36e5d4e0c0690a1690549bff45035090"
    data = replace(fisher.data, rows=expected, columns=("input_ids", "labels", "text"))
    data.check_rows({"rows": table})
