# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Code that comes with a model is run only if that is asked for, and saved with the model."""

import builtins
import importlib.util
import json
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_deepclean import FisherUnlearner
from hf_deepclean.models.custom_code import CodeFiles, save_code
from hf_deepclean.models.loading import load_model
from tests import tiny
from tests.custom_code import CODE, load_custom_model, save_custom_model, token_rows
from tests.unlearner.runs import config


@pytest.fixture(autouse=True)
def no_question(monkeypatch):
    def ask(*args):
        raise AssertionError("A question was asked at the terminal.")

    monkeypatch.setattr(builtins, "input", ask)


def test_a_path_with_code_of_its_own_is_refused_before_any_question(tmp_path):
    folder = save_custom_model(tmp_path / "model")
    for path in (folder, str(folder)):
        with pytest.raises(ValueError, match=r"code of its own \(modeling_mine.Mine.*trust_remote_code=True"):
            load_model(path, 0)
    rows = {"forget_dataset": token_rows().select(range(8)), "retain_dataset": token_rows().select(range(8, 48))}
    with pytest.raises(ValueError, match="not run unasked"):
        FisherUnlearner(str(folder), config(tmp_path / "out"), **rows)
    with pytest.raises(ValueError, match="not run unasked"):
        FisherUnlearner(tiny.bert(), config(tmp_path / "out"), reference_model=str(folder), **rows)


def test_a_path_with_code_of_its_own_is_loaded_if_that_is_asked_for(tmp_path):
    folder = save_custom_model(tmp_path / "model")
    loaded = load_model(folder, 0, trust_remote_code=True)
    assert type(loaded).__name__ == "Mine"
    assert torch.equal(loaded.head.weight, load_custom_model(folder).head.weight)


def test_code_that_the_loading_does_not_need_is_no_reason_for_a_refusal(tmp_path):
    tiny.bert().save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["auto_map"] = {"AutoModelForMaskedLM": "gone.Gone"}
    (tmp_path / "config.json").write_text(json.dumps(record))
    for trust_remote_code in (False, True):
        loaded = load_model(tmp_path, 0, trust_remote_code)
        assert type(loaded).__name__ == "BertForSequenceClassification"


def test_an_adapter_whose_base_has_code_of_its_own_is_refused_or_taken(tmp_path):
    folder = save_custom_model(tmp_path / "model")
    model = get_peft_model(load_custom_model(folder), LoraConfig(r=2, target_modules=["head"], task_type="SEQ_CLS"))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="not run unasked"):
        load_model(tmp_path / "adapter", 0)
    assert type(load_model(tmp_path / "adapter", 0, True).get_base_model()).__name__ == "Mine"


def test_the_files_that_a_configuration_names_are_found_with_all_that_they_import(tmp_path):
    folder = save_custom_model(tmp_path / "model")
    assert CodeFiles.of(folder) == CodeFiles(tuple(sorted(CODE)))
    nested = {"image_processor": {"auto_map": {"AutoImageProcessor": ["other/repo--slow.Slow", None]}}}
    nested["auto_map"] = {"AutoProcessor": "processing_mine.MineProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    (folder / "pooling_mine.py").write_text("from .deeper import x\nfrom .pooling_mine import y\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("from .beams import z\n")
    (folder / "broken.json").write_text("{")
    found = CodeFiles.of(folder)
    assert set(found.files) == CODE | {"custom_generate/generate.py"}
    assert found.missing == ("custom_generate/beams.py", "deeper.py", "processing_mine.py")
    assert found.elsewhere == ("other/repo",)


@pytest.mark.parametrize("how", ["by an auto class", "by its class", "by its class, from a folder that is gone"])
def test_the_result_of_a_run_loads_again_however_the_model_was_loaded(tmp_path, monkeypatch, how, caplog):
    folder = save_custom_model(tmp_path / "model")
    if how == "by an auto class":
        model = load_custom_model(folder)
    else:
        # As a package of the user's, which transformers does not know to copy.
        package = tmp_path / "packages" / "mine_package"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        for name in CODE:
            shutil.copy(folder / name, package)
        monkeypatch.syspath_prepend(package.parent)
        monkeypatch.delitem(sys.modules, "mine_package.modeling_mine", raising=False)
        assert importlib.util.find_spec("mine_package.modeling_mine") is not None
        from mine_package.modeling_mine import Mine

        model = Mine.from_pretrained(folder)
        if "gone" in how:
            shutil.rmtree(folder)
    rows = token_rows()
    parts = {"forget_dataset": rows.select(range(8)), "retain_dataset": rows.select(range(8, 48))}
    FisherUnlearner(model, config(tmp_path / "out", reset_fraction=0.1), **parts).unlearn()
    assert set(CodeFiles.of(tmp_path / "out").files) == CODE
    loaded = load_custom_model(tmp_path / "out")
    ids = torch.tensor(rows["input_ids"][:4])
    assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)


def test_code_that_is_nowhere_to_be_found_is_warned_of(tmp_path, caplog):
    folder = save_custom_model(tmp_path / "model")
    model = load_custom_model(folder)
    model.config.auto_map["AutoModel"] = "lost_mine.Mine"
    model.save_pretrained(tmp_path / "out")
    save_code(model, tmp_path / "out")
    assert "not found: lost_mine.py" in caplog.text
