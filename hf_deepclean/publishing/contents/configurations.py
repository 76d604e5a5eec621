# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Takes the paths out of configurations."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any


# Keys that hold the path or the id from which a model was loaded.
_SOURCES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
# Large files whose strings are tokens and names of weights.
_NO_CONFIGURATIONS = ("tokenizer.json", "vocab.json", "added_tokens.json", "model.safetensors.index.json")
_PATH = re.compile(r"(/|~/|[A-Za-z]:[\\/]|\\\\|file:/+)\w[^\s\\/]*[\\/][^\n]{1,999}")


def public_configuration(path: Path, base_model: str | None) -> str | None:
    """
    Replaces the sources in a configuration, at any depth, by the original model's Hub id, or removes them.

    Args:
        path (`Path`):
            A JSON file.
        base_model (`str`, *optional*):
            The Hub id. Without it an adapter's `base_model_name_or_path` becomes `null`, because peft needs the key.

    Returns:
        `str` or `None`: The new content; `None` if nothing has to change.
    """
    if path.suffix != ".json" or path.name in _NO_CONFIGURATIONS:
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    public = _without_sources(content, base_model)
    return None if public == content else json.dumps(public, indent=2, ensure_ascii=False) + "\n"


def _without_sources(content: Any, base_model: str | None) -> Any:
    if isinstance(content, list):
        return [_without_sources(item, base_model) for item in content]
    if not isinstance(content, dict):
        return content
    kept = {}
    for key, value in content.items():
        if key not in _SOURCES or value in (None, "", base_model):
            kept[key] = _without_sources(value, base_model)
        elif key == "base_model_name_or_path" or base_model is not None:
            kept[key] = base_model
    return kept


def check_no_paths(folder: Path, allowed: Collection[str] = ()) -> None:
    """
    Refuses configurations that hold a path of some machine.

    Args:
        folder (`Path`):
            The folder to publish.
        allowed (`Collection[str]`, *optional*):
            Values that may be published.

    Raises:
        `ValueError`: If a value is a path. It is named by file and key, never shown.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name in _NO_CONFIGURATIONS or path.name == "report.json":
            continue
        for key, value in _strings(json.loads(path.read_text(encoding="utf-8")), ""):
            if _PATH.fullmatch(value) and value not in allowed:
                raise ValueError(
                    f"{path.name} holds a path of a machine in `{key}`, and paths are not published. Remove it from "
                    "the file, or pass its value as one of `allowed` (`--allow`)."
                )


def _strings(content: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for name, item in content.items():
            yield from _strings(item, name)
    elif isinstance(content, list):
        for item in content:
            yield from _strings(item, key)
