# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What is published has been loaded, and answers as the model."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from hf_deepclean import FisherUnlearner, LeakError, needles_of_dataset, save_published
from hf_deepclean.publishing.contents import load_check
from tests.custom_code import CODE, load_custom_model, save_custom_model, token_rows
from tests.publishing.pushing import REPO, output, push
from tests.unlearner.runs import config


NEEDLES = needles_of_dataset(Dataset.from_dict({"text": ["nothing of the kind"]}))


@pytest.fixture
def copied(runs, tmp_path):
    def copy(kind):
        shutil.copytree(output(runs[kind]), tmp_path / "run")
        return tmp_path / "run"

    return copy


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    """A finished run on a model with code of its own."""
    folder, rows = tmp_path_factory.mktemp("custom"), token_rows()
    model = load_custom_model(save_custom_model(folder / "model"))
    parts = {"forget_dataset": rows.select(range(8)), "retain_dataset": rows.select(range(8, 48))}
    unlearner = FisherUnlearner(model, config(folder / "run", reset_fraction=0.1), **parts)
    unlearner.unlearn()
    return unlearner


def test_a_model_with_code_of_its_own_is_published_with_it_and_loads(custom, tmp_path):
    files = custom.save_pretrained(tmp_path / "public")
    assert set(files) >= CODE
    loaded = load_custom_model(tmp_path / "public")
    ids = torch.tensor(token_rows()["input_ids"][:4])
    assert torch.equal(loaded.eval()(ids).logits, custom.model.eval()(ids).logits)
    # Without the model in memory, nobody has said yet that the code may be run.
    with pytest.raises(ValueError, match="not run unasked"):
        save_published(output(custom), tmp_path / "again", NEEDLES)
    assert not (tmp_path / "again").exists()
    assert set(save_published(output(custom), tmp_path / "again", NEEDLES, trust_remote_code=True)) == set(files)


def test_code_is_searched_as_every_text_and_missing_or_foreign_code_is_refused(custom, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(output(custom), folder)
    pooling = (folder / "pooling_mine.py").read_text()
    (folder / "pooling_mine.py").write_text(f"# for Ottilie Zweifelsfrei of ward seven, as in her file\n{pooling}")
    needles = needles_of_dataset(
        Dataset.from_dict({"text": ["for Ottilie Zweifelsfrei of ward seven, as in her file"]})
    )
    with pytest.raises(LeakError, match=r"pooling_mine\.py"):
        save_published(folder, tmp_path / "public", needles, trust_remote_code=True)
    (folder / "pooling_mine.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks pooling_mine\.py, the code"):
        save_published(folder, tmp_path / "public", NEEDLES, trust_remote_code=True)
    (folder / "pooling_mine.py").write_text(pooling.replace("mean", "no_such_method"))
    with pytest.raises(ValueError, match="does not answer as the model.*no_such_method"):
        save_published(folder, tmp_path / "public", NEEDLES, in_memory=custom._in_memory())
    (folder / "pooling_mine.py").write_text(pooling)
    record = json.loads((folder / "config.json").read_text())
    for foreign, fits in (("me/other", True), ("/home/someone/code", False), ("../code", False)):
        changed = record | {"auto_map": record["auto_map"] | {"AutoModel": f"{foreign}--modeling.Model"}}
        (folder / "config.json").write_text(json.dumps(changed))
        if fits:
            assert save_published(folder, tmp_path / "public", NEEDLES, trust_remote_code=True)
        else:
            with pytest.raises(ValueError, match="no repository of the Hub"):
                save_published(folder, tmp_path / "other", NEEDLES, trust_remote_code=True)


def without(name):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def with_extra(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"extra": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})


def configured(**values):
    def damage(folder):
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(record | values))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("classifier.bias"), r"no classifier\.bias \(1 missing\)"),
        (with_extra, r"no place for extra \(1 unexpected\)"),
        (configured(num_hidden_layers=1), "unexpected"),
        (configured(num_hidden_layers=3), "missing"),
        (configured(hidden_size=8), "cannot be loaded|other shapes"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
    ],
)
def test_a_folder_that_does_not_hold_the_model_is_refused_without_the_model_in_memory(
    copied, tmp_path, damage, message
):
    folder = copied("classifier")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        save_published(folder, tmp_path / "public", NEEDLES)
    assert not (tmp_path / "public").exists()


@pytest.mark.parametrize("kind", ["classifier", "causal_lm", "adapter"])
def test_a_folder_that_answers_differently_than_the_model_is_not_sent(runs, hub, api, kind, caplog):
    unlearner = runs[kind]
    parameter = [parameter for name, parameter in unlearner.model.named_parameters() if parameter.requires_grad][-1]
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter += 0.1
        with pytest.raises(ValueError, match="answers differently than the model in memory"):
            push(unlearner, api)
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    assert hub.requests == []
    push(unlearner, api, REPO)
    assert "not checked" not in caplog.text


def test_settings_that_change_the_answers_alone_are_found(runs, copied, tmp_path):
    folder = copied("classifier")
    configured(hidden_act="relu")(folder)
    assert save_published(folder, tmp_path / "unnoticed", NEEDLES)
    with pytest.raises(ValueError, match="answers differently"):
        save_published(folder, tmp_path / "public", NEEDLES, in_memory=runs["classifier"]._in_memory())


def test_without_room_for_a_second_model_that_is_said(runs, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(load_check.psutil, "virtual_memory", lambda: SimpleNamespace(available=10))
    runs["classifier"].save_pretrained(tmp_path / "public")
    assert "was not checked: a copy of the model needs" in caplog.text


def test_an_adapter_that_misses_weights_is_refused_and_one_without_its_base_is_told(copied, tmp_path, caplog):
    folder = copied("adapter")
    record = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    removed = next(iter(tensors))
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != removed}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(ValueError, match="does not fit its base"):
        save_published(folder, tmp_path / "public", NEEDLES)
    save_file(tensors, folder / "adapter_model.safetensors")
    for base in (None, str(tmp_path / "gone"), "me/gone"):
        (folder / "adapter_config.json").write_text(json.dumps(record | {"base_model_name_or_path": base}))
        caplog.clear()
        save_published(folder, tmp_path / f"public-{base and base[-7:].replace('/', '')}", NEEDLES)
        assert "was not checked: it" in caplog.text
