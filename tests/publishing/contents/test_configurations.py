# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from hf_deepclean.publishing.contents.configurations import check_no_paths, public_configuration


def written(path, **content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("base", [None, "me/base"])
def test_sources_give_way_to_the_hubs_name_or_to_none_at_any_depth(tmp_path, base):
    inner = {"_name_or_path": "/home/someone/x", "hidden_size": 3}
    path = written(tmp_path / "config.json", name_or_path="../x", text_config=inner, parts=[inner])
    public = json.loads(public_configuration(path, base))
    named = {} if base is None else {"_name_or_path": base}
    assert public["text_config"] == named | {"hidden_size": 3} == public["parts"][0]
    assert public.get("name_or_path") == base
    path = written(tmp_path / "adapter_config.json", base_model_name_or_path="out/base", r=2)
    assert json.loads(public_configuration(path, base)) == {"base_model_name_or_path": base, "r": 2}
    for content in ({"hidden_size": 3}, {"_name_or_path": ""}, {"_name_or_path": base}):
        assert public_configuration(written(tmp_path / "config.json", **content), base) is None


@pytest.mark.parametrize(
    "value", ["/home/someone/models/x", "~/models/x", "C:\\models\\x", "\\\\server\\share\\x", "file:///data/x/y"]
)
def test_any_other_path_is_refused_by_file_and_key_and_not_shown(tmp_path, value):
    for content in ({"vocab_path": value}, {"a": [{"vocab_path": [value]}]}):
        written(tmp_path / "tokenizer_config.json", **content)
        with pytest.raises(
            ValueError, match=r"tokenizer_config\.json holds a path of a machine in `vocab_path`"
        ) as error:
            check_no_paths(tmp_path)
        assert value not in str(error.value)
        check_no_paths(tmp_path, [value])


def test_ordinary_values_are_no_paths(tmp_path):
    words = ["/think", "</s>", "a/b", "gelu", "https://huggingface.co/x/y", "{% if /x/y %}", "//", "me/base", "1/2/3"]
    written(tmp_path / "config.json", values=words)
    written(tmp_path / "tokenizer.json", model={"vocab": {"/usr/share/x": 0}, "merges": ["../ ../x"]})
    check_no_paths(tmp_path)
