# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Dataclasses that are saved as JSON."""

import json
import math
import os
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from ..runtime.files import replaced
from ..runtime.sealed_files import sealed, unsealed


R = TypeVar("R", bound="JsonRecord")


class JsonRecord:
    """A dataclass that can be saved as JSON and loaded again."""

    # Who may read the file, as far as the process allows it.
    _file_mode: ClassVar[int] = 0o666

    def to_dict(self) -> dict[str, Any]:
        """Converts the record to JSON types."""
        return to_json_types(self)

    @classmethod
    def from_dict(cls: type[R], record: Mapping[str, Any]) -> R:
        """
        Makes the record from a dictionary that `to_dict` has made, or from the content of a file of `save`.

        Raises:
            `ValueError`: If the dictionary has a digest that is not its own, or fields of something else.
        """
        return from_json_types(cls, unsealed(record))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the record as JSON, with its digest. A failed write leaves an earlier file as it was."""
        with replaced(Path(path)) as written:
            written.touch(mode=self._file_mode)
            written.write_text(json.dumps(sealed(self.to_dict()), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """
        Reads a record that `save` has written.

        Raises:
            `ValueError`: If the file is damaged, or holds something else.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"{path} cannot be read as a {cls.__name__} ({error}). Pass a file that hf_deepclean wrote, unchanged."
            ) from error


def to_json_types(value: Any) -> Any:
    """Converts dataclasses, mappings and sequences to JSON types; infinity and NaN become strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json_types(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_types(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json_types(kind: Any, value: Any) -> Any:
    """Converts what `to_json_types` has made back to a value of type `kind`; unknown fields are refused."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else from_json_types(arguments[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        unknown = value.keys() - hints.keys()
        if unknown:
            raise ValueError(
                f"The record of a {kind.__name__} holds the unknown fields {sorted(unknown)}: another version of "
                "hf_deepclean has written it, or it is not a report."
            )
        return kind(**{name: from_json_types(hints[name], item) for name, item in value.items()})
    if origin is dict:
        return {key: from_json_types(arguments[1], item) for key, item in value.items()}
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_json_types(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if kind is float:
        return float(value)
    return value
