# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Code that comes with a model: the files that `auto_map` of its configurations names. It is not run unasked."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_relative_imports
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file


logger = logging.getLogger(__name__)

# Code of `generate` that transformers looks for beside a model.
_GENERATE = "custom_generate/generate.py"
_MAX_CONFIG_BYTES = 2**24


@dataclass(frozen=True)
class CodeFiles:
    """
    The code that the configurations in a folder name.

    Args:
        files (`tuple[str, ...]`): The files that are there, relative to the folder.
        missing (`tuple[str, ...]`): Files that are named and not there.
        elsewhere (`tuple[str, ...]`): What stands before `--` in references to code of other repositories.
    """

    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> "CodeFiles":
        """
        Finds the code of a saved model, tokenizer or processor, with all files that it imports relatively.

        Args:
            folder (`str`):
                The folder with the configurations.
        """
        folder = Path(folder)
        names, elsewhere = set(), set()
        if (folder / _GENERATE).is_file():
            names.add(_GENERATE)
        for path in sorted(folder.glob("*.json")):
            for reference in _references(path):
                repo, _, local = reference.rpartition("--")
                if repo:
                    elsewhere.add(repo)
                else:
                    names.add(f"{local.split('.')[0]}.py")
        waiting, found, missing = sorted(names), set(), set()
        while waiting:
            name = waiting.pop()
            if not (folder / name).is_file():
                missing.add(name)
            elif name not in found:
                found.add(name)
                waiting += _relative_imports(name, folder)
        return cls(tuple(sorted(found)), tuple(sorted(missing)), tuple(sorted(elsewhere)))


def _references(path: Path) -> Iterator[str]:
    """The classes that a configuration names in `auto_map`, at any depth."""
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG_BYTES:
        return
    try:
        waiting = [json.loads(path.read_text(encoding="utf-8"))]
    except ValueError:
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "auto_map":
                    yield from _strings(item)
                else:
                    waiting.append(item)
        elif isinstance(value, list):
            waiting += value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _relative_imports(name: str, folder: Path) -> list[str]:
    with suppress(ValueError):
        modules = get_relative_imports(folder / name)
        return [os.path.normpath(Path(name).parent / f"{module}.py") for module in modules]
    return []


def check_custom_code(name: str | os.PathLike[str], trust_remote_code: bool) -> dict[str, Any]:
    """
    Refuses a model that only its own code can load, before transformers asks at the terminal whether to run it.

    Args:
        name (`str`):
            Folder or Hub id of the model. Only its configuration is read.
        trust_remote_code (`bool`):
            Whether its code may be run.

    Returns:
        `dict[str, Any]`: The configuration.

    Raises:
        `ValueError`: If the model needs its own code and that may not be run.
    """
    config, _ = PreTrainedConfig.get_config_dict(name)
    references = sorted(set(_strings(config.get("auto_map"))))
    is_known = config.get("model_type") in CONFIG_MAPPING
    is_known &= all(hasattr(transformers, architecture) for architecture in config.get("architectures") or ())
    if references and not is_known and not trust_remote_code:
        raise ValueError(
            f"The model {str(name)!r} comes with code of its own ({', '.join(references)}), which is not run unasked. "
            "Read it; then pass `trust_remote_code=True`, or load the model yourself and pass the object."
        )
    return config


def auto_class_of(config: Mapping[str, Any]) -> Any | None:
    """
    Returns the auto class that loads a model by its own code, or `None` if the code has no class for it.

    Args:
        config (`Mapping[str, Any]`):
            The configuration of the model.
    """
    architecture = next(iter(config.get("architectures") or ()), None)
    for name, references in (config.get("auto_map") or {}).items():
        if name.startswith("AutoModel") and architecture in [one.rpartition(".")[2] for one in _strings(references)]:
            return getattr(transformers, name, None)
    return None


def has_own_code(value: object) -> bool:
    """Whether the class of a model, tokenizer or processor is not part of transformers."""
    return type(value).__module__.partition(".")[0] not in ("transformers", "peft", "builtins")


def save_code(model: PreTrainedModel, folder: str | os.PathLike[str]) -> None:
    """
    Copies the code that a saved configuration names, where `save_pretrained` has not done so.

    transformers copies the code of a class that an auto class has loaded. A class that was imported, and code of
    `generate`, stay behind. Warns of a file that is nowhere to be found, because the folder cannot be loaded then.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model that was saved. Its module, its folder and the cache of the Hub are searched.
        folder (`str`):
            The folder that it was saved to.
    """
    folder = Path(folder)
    modules = [sys.modules.get(kind.__module__) for kind in (type(model), type(model.config))]
    places = [Path(module.__file__).parent for module in modules if getattr(module, "__file__", None)]
    source = str(getattr(model, "name_or_path", None) or "")
    places += [Path(source)] if source else []
    if has_own_code(model):
        _copy_code(_GENERATE, folder, places, source)
    # A file that was copied may import further ones.
    while missing := CodeFiles.of(folder).missing:
        found = [name for name in missing if _copy_code(name, folder, places, source)]
        if not found:
            logger.warning(
                f"The configuration names code that is not found: {', '.join(missing)}. Without it the result cannot "
                "be loaded by auto classes, or published. Copy it to the output folder."
            )
            return


def _copy_code(name: str, folder: Path, places: list[Path], source: str) -> bool:
    """Whether a file of code was found and copied."""
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None and source and not Path(source).exists():
        with suppress(Exception):
            found = cached_file(source, name, local_files_only=True)
    if found is None:
        return False
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, folder / name)
    return True
