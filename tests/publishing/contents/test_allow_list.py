# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Only files of names that the model, its tokenizer or its processor write leave the output directory."""

import json
import os
import socket

import pytest
import torch
from transformers import ViTImageProcessor, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from hf_deepclean.publishing.contents.allow_list import published_names
from tests import tiny
from tests.tokenizers import byte_tokenizer


SECRETS = (
    *(
        "LICENSE-keys.pem",
        "auth_token.json",
        "hf_tokens.json",
        "tokens_to_forget.json",
        "tokenizer_training_rows.json",
    ),
    *("vocab_of_patients.txt", "secret.spm", "old.model", "notes.jinja", "tokenizer.model", "vocab.txt", "vocab.json"),
    *("special_tokens_map.json", "added_tokens.json", "model-00001-of-00002.safetensors", "adapter_model.safetensors"),
    *("adapter_config.json", "modeling_other.py", "LICENSES", "generation_config.json", "chat_template.json"),
    *("my_preprocessor_config.json", "image_processor_config.json", "tokenizer_config.json.bak", ".env"),
)


@pytest.fixture
def folder(tmp_path):
    tiny.bert().save_pretrained(tmp_path)
    return tmp_path


def names(folder, **kwargs):
    return set(published_names(folder, **({"is_adapter": False} | kwargs)))


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_files_of_other_names_stay_whatever_they_look_like_and_are_named_in_one_line(folder, caplog, with_tokenizer):
    expected = {"config.json", "model.safetensors"}
    if with_tokenizer:
        byte_tokenizer().save_pretrained(folder)
        expected |= {"tokenizer.json", "tokenizer_config.json"}
    assert names(folder) == expected and not caplog.records
    for name in SECRETS:
        (folder / name).write_text("{}")
    (folder / "additional_templates").mkdir()
    (folder / "additional_templates" / "patients.jinja").write_text("{}")
    (folder / "LICENSE").write_text("Mine.")
    for name in ("report.json", "forget_commitment.json", "README.md", "training_args.bin"):
        (folder / name).write_text("{}")
    assert names(folder) == expected | {"LICENSE"}
    (record,) = caplog.records
    assert record.message.startswith("Not published") and ".env, LICENSE-keys.pem, LICENSES" in record.message
    assert "README" not in record.message and "\n" not in record.message
    # A tokenizer in memory writes no template, whatever the folder holds.
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert "chat_template.jinja" not in names(folder, processing_class=byte_tokenizer())


def test_what_a_call_for_several_requests_leaves_stays_without_a_word(folder, caplog):
    for name in ("_requests.json", "request-00000.json"):
        (folder / name).write_text("{}")
    assert names(folder) == {"config.json", "model.safetensors"} and not caplog.records


def test_the_names_are_those_that_tokenizers_and_processors_write(tmp_path):
    def saved(folder, *parts):
        tiny.bert().save_pretrained(tmp_path / folder)
        for part in parts:
            part.save_pretrained(tmp_path / folder)
        return {path.relative_to(tmp_path / folder).as_posix() for path in (tmp_path / folder).rglob("*.*")}

    tokenizer = byte_tokenizer(chat_template={"default": "{{ messages }}", "brief": "{{ messages[0] }}"})
    written = saved("templates", tokenizer)
    assert {"chat_template.jinja", "additional_chat_templates/brief.jinja"} <= written
    assert names(tmp_path / "templates") == written
    written = saved("images", ViTImageProcessor())
    assert "preprocessor_config.json" in written and names(tmp_path / "images") == written
    written = saved("sounds", Wav2Vec2FeatureExtractor())
    assert "preprocessor_config.json" in written and names(tmp_path / "sounds") == written
    vocabulary = tmp_path / "letters.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "<s>": 4, "</s>": 5}))
    slow = Wav2Vec2CTCTokenizer(str(vocabulary))
    written = saved("speech", Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), slow))
    assert {"vocab.json", "processor_config.json", "tokenizer_config.json"} <= written
    assert names(tmp_path / "speech") == written


def test_shards_are_those_of_the_index(folder):
    (folder / "model.safetensors").unlink()
    tiny.bert().save_pretrained(folder, max_shard_size="10KB")
    written = {path.name for path in folder.iterdir()}
    assert len(written) > 3 and names(folder) == written
    (folder / "model-00001-of-99999.safetensors").touch()
    assert names(folder) == written
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match="does not write"):
        names(folder)
    (folder / "model.safetensors").touch()
    with pytest.raises(ValueError, match="not known which are the result"):
        names(folder)


def link(name):
    def make(folder):
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "secret").write_text("{}")
        (folder / name).unlink(missing_ok=True)
        os.symlink(folder / "elsewhere" / "secret", folder / name)

    return make


def bind(folder):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(folder / "LICENSE"))


def link_the_templates(folder):
    byte_tokenizer(chat_template={"default": "a", "brief": "b"}).save_pretrained(folder)
    os.rename(folder / "additional_chat_templates", folder / "elsewhere")
    os.symlink(folder / "elsewhere", folder / "additional_chat_templates")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, link(name)) for name in ("config.json", "model.safetensors", "LICENSE", "README.md", "notes.txt")),
        ("tokenizer.json", lambda folder: os.mkfifo(folder / "tokenizer.json")),
        ("LICENSE", bind),
        ("additional_chat_templates", link_the_templates),
        ("LICENSE.md", lambda folder: (folder / "LICENSE.md").mkdir()),
        ("gone.json", lambda folder: os.symlink(folder / "nowhere", folder / "gone.json")),
    ],
)
def test_links_and_special_files_are_refused_by_name(folder, name, make, monkeypatch):
    monkeypatch.chdir(folder)
    make(folder)
    with pytest.raises(ValueError, match=rf"^{name} in .* is (a link|a folder|no ordinary file)"):
        names(folder)


def test_a_link_to_a_folder_that_is_not_published_and_a_hard_link_are_no_reason_for_a_refusal(folder, tmp_path):
    (folder / "scratch").mkdir()
    os.symlink(folder / "scratch", folder / "checkpoint-5")
    os.link(folder / "config.json", folder / "scratch" / "config.json")
    assert names(folder) == {"config.json", "model.safetensors"}


def test_a_tokenizer_that_cannot_be_loaded_is_refused_and_named(folder):
    byte_tokenizer().save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"holds tokenizer_config\.json, but AutoTokenizer cannot load it"):
        names(folder)


def test_a_model_that_generates_has_a_configuration_of_that(tmp_path):
    from tests.published import llama

    torch.manual_seed(0)
    llama(byte_tokenizer()).save_pretrained(tmp_path)
    assert names(tmp_path) == {"config.json", "generation_config.json", "model.safetensors"}
