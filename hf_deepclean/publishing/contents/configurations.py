# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Takes the paths out of configurations."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ...report.base_card import is_hub_id
from ...report.report import REPORT_NAME
from ..leaks.formats import leaves, parsed
from .local_paths import is_local_path, private_part


# Keys that hold the path or the id from which a model was loaded.
_SOURCES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
# Keys of further sources and of files, which are taken out if their value is a path.
_FILES = re.compile(r".*_name_or_path|(tokenizer|vocab|merges|special_tokens_map|spm|sp_model)_file|cache_dir")
# Files whose strings are tokens.
_VOCABULARIES = ("vocab.json", "added_tokens.json")
_TEXTS = (".jinja", ".py")


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
    if path.suffix != ".json" or path.name in (*_VOCABULARIES, "tokenizer.json", SAFE_WEIGHTS_INDEX_NAME):
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
        if key in _SOURCES and value not in (None, "", base_model):
            if key == "base_model_name_or_path" or base_model is not None:
                kept[key] = base_model
        elif not (_FILES.fullmatch(key) and key not in _SOURCES and isinstance(value, str) and _is_local(value)):
            kept[key] = _without_sources(value, base_model)
    return kept


def _is_local(value: str) -> bool:
    return bool(value) and (is_local_path(value) or not is_hub_id(value, Path()))


def check_no_paths(folder: Path, allowed: Collection[str] = ()) -> None:
    """
    Refuses configurations that hold a path of some machine or private storage, or an access token, as a value or as a
    key, at any depth. Chat templates and code may hold no personal folder and no token.

    Args:
        folder (`Path`):
            The folder to publish.
        allowed (`Collection[str]`, *optional*):
            Values that may be published.

    Raises:
        `ValueError`: If there is one. It is named by file and key, never shown.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _TEXTS:
            texts = [(f"line {number}", line) for number, line in enumerate(_lines(path), 1)]
        elif path.suffix == ".json" and name not in (*_VOCABULARIES, REPORT_NAME):
            texts = list(_texts_of(path))
        else:
            continue
        for key, text in texts:
            for value in allowed:
                text = text.replace(value, "")
            found = private_part(text)
            if found is None and path.suffix == ".json" and is_local_path(text):
                found = "a path of a machine"
            if found is not None:
                raise ValueError(
                    f"{name} holds {found} in `{key}`, which is not published. Remove it from the file, or pass its "
                    "value as one of `allowed` (`--allow`)."
                )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")


def _texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """The keys and texts of a JSON file with the last key above each that tells nothing, without tokens."""
    for field, text in leaves(parsed(path.read_text(encoding="utf-8"))):
        is_token = path.name == "tokenizer.json" and field[:2] in (("model", "vocab"), ("model", "merges"))
        is_weight = path.name == SAFE_WEIGHTS_INDEX_NAME and field[:1] == ("weight_map",)
        if isinstance(text, str) and not is_token and not is_weight:
            names = [part for part in field if isinstance(part, str) and private_part(part) is None]
            yield next((part for part in reversed(names) if not is_local_path(part)), "it"), text
