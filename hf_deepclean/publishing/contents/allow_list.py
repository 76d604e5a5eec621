# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The allow-list: the exact names of the files that the model and its tokenizer or processor write themselves."""

import json
import logging
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

from ...models.adapters.parameters import ADAPTER_CONFIG_NAME
from ...models.custom_code import CodeFiles
from ...models.loading import model_class_of
from ...report.base_card import is_hub_id
from ...report.report import REPORT_NAME
from ...runtime.files import INCOMPLETE, STATE_FOLDER, matches, temporary_folder
from ...runtime.lock import LOCK_NAME
from ..card import CARD_NAME, CARD_NAME_BESIDE
from ..commitment import COMMITMENT_NAME


logger = logging.getLogger(__name__)

ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
_LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt")
_UNSAFE_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin", "*.ckpt", "*.pt", "*.pth", "*.h5", "*.msgpack")

# The auto class that reads a tokenizer or a processor, by the file that shows that there is one.
_PROCESSING = {
    "processor_config.json": "AutoProcessor",
    "tokenizer_config.json": "AutoTokenizer",
    "tokenizer.json": "AutoTokenizer",
    "preprocessor_config.json": "AutoImageProcessor",
    "video_preprocessor_config.json": "AutoVideoProcessor",
}
# What a run or a training leaves, which nobody expects to be published.
_OF_A_RUN = re.compile(
    rf"{re.escape(INCOMPLETE)}.*|{STATE_FOLDER}|_fisher|checkpoint-\d+|runs|plots|training_args\.bin|"
    r"_requests\.json|request-\d{5}\.json|trainer_state\.json|(all|train|eval)_results\.json|events\.out\.tfevents.*"
)


def published_names(
    folder: Path, *, is_adapter: bool, processing_class: Any | None = None, trust_remote_code: bool = False
) -> list[str]:
    """
    Lists the files of an output directory that may be published. Says which others are there.

    A tokenizer or processor is saved again into an empty folder, to learn the names that it writes. The weights have
    the names of the library, in shards those of the index. Code has the names that the configurations give it.

    Args:
        folder (`Path`):
            Output directory of a finished run.
        is_adapter (`bool`):
            Whether the result is an adapter.
        processing_class (*optional*):
            The tokenizer or processor. By default it is loaded from the folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with a tokenizer or processor may be run.

    Returns:
        `list[str]`: Names relative to `folder`, in alphabetical order.

    Raises:
        `FileNotFoundError`: If weights or code are missing.
        `ValueError`: If a file is a link or no file, if weights are not safetensors, or if the tokenizer or processor
            cannot be loaded.
    """
    check_entries(folder)
    names = _weight_names(folder, is_adapter)
    if is_adapter:
        names |= {ADAPTER_CONFIG_NAME}
    else:
        names |= {CONFIG_NAME} | ({GENERATION_CONFIG_NAME} if _can_generate(folder) else set())
    names |= _code_names(folder) | set(_LICENSES)
    # All are loaded before any is saved: an error is one of reading, or one of writing.
    loaded = (
        [processing_class] if processing_class is not None else list(processing_classes(folder, trust_remote_code))
    )
    with temporary_folder() as empty:
        for one in loaded:
            one.save_pretrained(empty)
        names |= {path.relative_to(empty).as_posix() for path in empty.rglob("*") if path.is_file()}
    present = sorted(name for name in names if (folder / name).exists())
    for name in [*present, CARD_NAME] if (folder / CARD_NAME).exists() else present:
        _check_plain(folder, name)
    _tell_left_out(folder, present)
    return present


def processing_classes(folder: Path, trust_remote_code: bool = False) -> Iterator[Any]:
    """
    Loads the tokenizer and the processors of a folder.

    Args:
        folder (`Path`):
            The folder.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with them may be run.

    Raises:
        `ValueError`: If one cannot be loaded.
    """
    kinds = {}
    for name, auto_class in _PROCESSING.items():
        if (folder / name).is_file():
            if name == "preprocessor_config.json":
                with suppress(ValueError):
                    record = json.loads((folder / name).read_text(encoding="utf-8"))
                    if "feature_extractor_type" in record:
                        auto_class = "AutoFeatureExtractor"
            kinds.setdefault(auto_class, name)
    for auto_class, name in kinds.items():
        try:
            yield getattr(transformers, auto_class).from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:
            raise ValueError(
                f"{folder} holds {name}, but {auto_class} cannot load it ({_in_one_line(error)}), and nobody else "
                "could. Restore its files or move them elsewhere; a tokenizer or processor with code of its own needs "
                "`trust_remote_code=True`."
            ) from error


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}"


def check_entries(folder: Path) -> None:
    """
    Refuses links to files and special files in an output directory: reading them would wait, or read what belongs to
    something else. The directory itself may be a link.

    Raises:
        `ValueError`: If there is one.
    """
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        is_file_link = stat.S_ISLNK(mode) and not path.is_dir()
        if is_file_link or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            _refuse(folder, path.name, mode)


def _check_plain(folder: Path, name: str) -> None:
    """Refuses a file to publish that is a link, is no file, or is behind a link."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not (stat.S_ISREG(mode) or path != folder / name):
            _refuse(folder, path.relative_to(folder).as_posix(), mode)


def _refuse(folder: Path, name: str, mode: int) -> None:
    kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
    raise ValueError(
        f"{name} in {folder} is {kind}. Only files of the folder itself are published: put the file in its place, or "
        "move it elsewhere."
    )


def _weight_names(folder: Path, is_adapter: bool) -> set[str]:
    unsafe = sorted(path.name for path in folder.iterdir() if matches(path.name, _UNSAFE_WEIGHTS))
    if unsafe:
        raise ValueError(
            f"{folder} holds {', '.join(unsafe)}: only safetensors are published, and it is not known which model "
            "these files belong to. Move them elsewhere."
        )
    whole = ADAPTER_WEIGHTS_NAME if is_adapter else SAFE_WEIGHTS_NAME
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if is_adapter or not index.exists():
        if not (folder / whole).exists():
            raise FileNotFoundError(
                f"{folder} holds no weights ({whole}). Pass the output directory of a finished run."
            )
        return {whole}
    if (folder / whole).exists():
        raise ValueError(
            f"{folder} holds {whole} and {index.name}, and it is not known which are the result. Move one elsewhere."
        )
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    strange = sorted(shard for shard in shards if not re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", shard))
    if strange:
        raise ValueError(f"{index} names {', '.join(strange)}, which `save_pretrained` does not write.")
    missing = sorted(shard for shard in shards if not (folder / shard).exists())
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}, which {index.name} names. Restore the files, or run again."
        )
    return {index.name} | shards


def _can_generate(folder: Path) -> bool:
    with suppress(ValueError, OSError):
        # The code of the model is not run for this: it is checked later.
        return getattr(model_class_of(folder, False), "can_generate", lambda: True)()
    return True


def _code_names(folder: Path) -> set[str]:
    code = CodeFiles.of(folder)
    if code.missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(code.missing)}, the code that its configurations name in `auto_map`. Without "
            "it nobody can load the model. Copy the files there, or remove the entries."
        )
    paths = [repo for repo in code.elsewhere if not is_hub_id(repo)]
    if paths:
        raise ValueError(
            f"`auto_map` in a configuration of {folder} names code that is in no repository of the Hub "
            f"({', '.join(map(repr, paths))}). Copy that code to the folder, and name it without `--`."
        )
    if code.elsewhere:
        logger.info(f"The code of the model stays in {', '.join(code.elsewhere)}, and is loaded from there.")
    return set(code.files)


def _tell_left_out(folder: Path, published: Iterable[str]) -> None:
    own = {REPORT_NAME, COMMITMENT_NAME, CARD_NAME, CARD_NAME_BESIDE, LOCK_NAME}
    own |= {name.split("/")[0] for name in published}
    others = sorted(path.name for path in folder.iterdir() if path.name not in own)
    others = [name for name in others if not _OF_A_RUN.fullmatch(name) and not name.startswith("__pycache__")]
    if others:
        shown = ", ".join(others[:10]) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
        logger.warning(
            f"Not published, because neither the model nor its tokenizer or processor writes files of these names: "
            f"{shown}."
        )
