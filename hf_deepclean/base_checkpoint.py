# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the checkpoint that a model was fine-tuned from, if it is at hand on this machine."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .models.adapters.parameters import ADAPTER_CONFIG_NAME
from .models.fingerprint import weights_fingerprint
from .report.base_card import BaseCard, is_hub_id
from .report.report import REPORT_NAME
from .reset.kinship import Kinship, find_kinship, is_saved_in
from .reset.values import REWINDING
from .runtime.processes import gather_objects, is_main_process
from .runtime.random_state import all_seeded


logger = logging.getLogger(__name__)

# The key of its identity in the state of a run.
BASE_CHECKPOINT = "base checkpoint"
# Where a checkpoint was found, with the words for it.
FOUND_IN = {
    "pretrained_model": "as given",
    "model_init": "as `model_init` builds it",
    "configuration": "which the configuration of the model names",
    "report": "which the report of an earlier cleaning names",
    "card": "which the card of the model names",
}
_MAY_HAVE_SEEN = " If that was itself trained on the forget data, pass an earlier checkpoint as `pretrained_model`."
# A Trainer writes it into every state in the midst of a training, which may have seen the data to forget.
_TRAINER_STATE = "trainer_state.json"
# A card of a model that was derived in these ways names no checkpoint before fine-tuning.
_OTHER_RELATIONS = ("quantized", "merge", "adapter")
_CLEANED = "hf_deepclean"
_MAX_JSON_BYTES = 2**24
# What is larger is not loaded: it may fill the memory. Float32 beside bfloat16 is twice as large, a head adds to that.
_MAX_TIMES_LARGER = 8
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class BaseCheckpoint:
    """
    The checkpoint that a model was fine-tuned from, or why none was found.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            What weights can be rewound to: a folder, a path or id as it was given, or a model.
        name (`str`, *optional*):
            Its path or Hub id.
        found_in (`str`, *optional*):
            Where it was found, a key of `FOUND_IN`.
        hub_id (`str`, *optional*):
            Its Hub id, if it lies in the cache of the Hub. Only this may be published.
        skipped (`tuple[str, ...]`):
            Why others that were named are not taken, one part of a sentence each.
        may_exist (`bool`, *optional*, defaults to `False`):
            Whether the model may have been fine-tuned from a checkpoint that was not found.
    """

    model: str | PreTrainedModel | None = None
    name: str | None = None
    found_in: str | None = None
    hub_id: str | None = None
    skipped: tuple[str, ...] = ()
    may_exist: bool = False

    @classmethod
    def given(cls, pretrained_model: str | os.PathLike[str]) -> "BaseCheckpoint":
        """The checkpoint that the caller has passed."""
        name = str(pretrained_model)
        hub_id = name if not Path(name).exists() and _folder_of(name) is not None else None
        return cls(pretrained_model, name, "pretrained_model", hub_id)

    def sentence(self, reset_value: str) -> str:
        """
        What the owner of the model reads about the checkpoint. It may hold paths. Empty if there is nothing to say.

        Args:
            reset_value (`str`):
                The reset value of the run.
        """
        if reset_value in REWINDING:
            name = "the model" if self.name is None else repr(self.name)
            seen = "" if self.found_in == "pretrained_model" else _MAY_HAVE_SEEN
            verb = "are rewound to" if reset_value == "pretrained" else "move back from what they learnt since"
            return f"The selected weights {verb} {name}, {FOUND_IN[self.found_in]}.{seen}"
        if self.model is not None or not self.may_exist:
            return ""
        value = "zero" if reset_value == "zero" else "a fresh initialisation"
        reasons = f" Not taken: {'; '.join(self.skipped)}." if self.skipped else ""
        return (
            f"No checkpoint before fine-tuning is at hand, so the weights are reset to {value}, which takes away what "
            f"pretraining gave. If the model was fine-tuned, pass its checkpoint as `pretrained_model`.{reasons}"
        )

    def settings(self, reset_value: str) -> dict[str, Any]:
        """
        The settings of a report on the reset.

        Args:
            reset_value (`str`):
                The reset value of the run.
        """
        settings = {"reset_value": reset_value, "base_checkpoint": self.sentence(reset_value)}
        if reset_value not in REWINDING:
            return settings
        settings |= {"pretrained_model": self.name, "reset_value_from": self.found_in}
        return settings | ({} if self.hub_id is None else {"pretrained_hub_id": self.hub_id})

    def identity(self) -> dict[str, str]:
        """What a resumed run must share, besides the name: a commit of the Hub, or the digest of the weights."""
        if isinstance(self.model, PreTrainedModel):
            return {BASE_CHECKPOINT: weights_fingerprint(self.model)}
        folder = None if self.model is None else _folder_of(str(self.model))
        if folder is None:
            return {}
        if self.hub_id is not None:
            return {BASE_CHECKPOINT: folder.name}
        digest = hashlib.sha256()
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            with open(path, "rb") as file:
                for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                    digest.update(chunk)
        return {BASE_CHECKPOINT: digest.hexdigest()}


@dataclass(frozen=True)
class _Candidate:
    """A model that is named somewhere. One that is known to be the model itself is only looked into."""

    name: str
    found_in: str
    is_model_itself: bool = False


def find_base_checkpoint(
    model: PreTrainedModel,
    names: Collection[str],
    *,
    is_saved: bool = False,
    model_init: Callable[[], Any] | None = None,
    seed: int = 0,
) -> BaseCheckpoint:
    """
    Finds the checkpoint that a model was fine-tuned from, in this order: what `model_init` builds; what the model was
    loaded from, if it has other weights now; and what the folder of the model names: in its configuration, as older
    versions of transformers wrote it, in the report of an earlier cleaning, and in the `base_model` of its card.

    A checkpoint counts if it is a folder, or lies in the cache of the Hub, and holds a configuration and weights in
    safetensors. The Hub is never asked, and no code that comes with a checkpoint is run. It must fit the model, as
    [`check_pretrained_model`] demands, and by its weights the model must be [fine-tuned from it][`find_kinship`]. The
    model before a cleaning, and a state in the midst of a training, are no checkpoints before fine-tuning.

    All processes must call this. They find the same.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        names (`Collection[str]`):
            Names of the parameters that may be rewound.
        is_saved (`bool`, *optional*, defaults to `False`):
            Whether the model is as it was loaded, so that what it was loaded from is the model itself.
        model_init (`Callable`, *optional*):
            Builds the model as it was before its training.
        seed (`int`, *optional*, defaults to `0`):
            The seed of the run. `model_init` gets another one, so that weights that it draws are not those that the
            training began with. The random state does not change.

    Returns:
        [`BaseCheckpoint`]
    """
    found, skipped, is_known = None, [], False
    name = str(getattr(model.config, "_name_or_path", None) or "")
    if model_init is not None:
        found = _of_model_init(model, names, model_init, seed, skipped)
    waiting = [_Candidate(name, "configuration", is_saved)] if name and found is None else []
    seen: set[str] = set()
    while waiting and found is None:
        candidate = waiting.pop(0)
        revision = getattr(model.config, "_commit_hash", None) if candidate.name == name else None
        folder = _folder_of(candidate.name, revision)
        if candidate.name in seen or str(folder) in seen:
            continue
        seen |= {candidate.name} | ({str(folder)} if folder is not None else set())
        reason = _why_not_taken(model, names, candidate, folder)
        if reason == "":
            hub_id = None if Path(candidate.name).exists() else candidate.name
            found = BaseCheckpoint(str(folder), candidate.name, candidate.found_in, hub_id)
        elif reason is not None:
            skipped.append(f"{candidate.name!r}, {FOUND_IN[candidate.found_in]}, {reason}")
            # A card names what the model was made from; a configuration may be that of a model that was never loaded.
            is_known |= candidate.found_in == "card"
        if reason is None and folder is not None:
            waiting = [*_named_in(folder, skipped), *waiting]
    if is_main_process():
        for reason in skipped:
            level = logging.WARNING if is_known and found is None else logging.INFO
            logger.log(level, f"Not taken as the checkpoint before fine-tuning: {reason}.")
    return replace(found or BaseCheckpoint(may_exist=bool(name)), skipped=tuple(skipped))


def _of_model_init(
    model: PreTrainedModel, names: Collection[str], model_init: Callable[[], Any], seed: int, skipped: list[str]
) -> BaseCheckpoint | None:
    try:
        with all_seeded((seed + 1) % 2**32), torch.device("cpu"):
            built = model_init()
    except Exception as error:
        built, reason = None, f"raises {type(error).__name__}"
    else:
        reason = "builds no model of transformers"
    name = ""
    if isinstance(built, PreTrainedModel):
        name = str(getattr(built.config, "_name_or_path", None) or "")
        reason = _why_unrelated(model, names, built) if name else "builds a new model, which comes from no checkpoint"
    reason = _of_all_processes(reason)
    if not reason:
        return BaseCheckpoint(built, name, "model_init")
    skipped.append(f"`model_init` {reason}")
    return None


def _why_not_taken(
    model: PreTrainedModel, names: Collection[str], candidate: _Candidate, folder: Path | None
) -> str | None:
    """Why a candidate is not the checkpoint, `""` if it is, and `None` if it is the model itself."""
    if candidate.is_model_itself:
        return None
    if None in gather_objects(folder):
        return "is neither a folder here nor in the cache of the Hub"
    if (folder / _TRAINER_STATE).exists():
        return None
    if (folder / ADAPTER_CONFIG_NAME).exists():
        return "is an adapter"
    if not any((folder / file).is_file() for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        return "has no weights in safetensors here"
    num_bytes = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    if num_bytes > _MAX_TIMES_LARGER * sum(parameter.nbytes for parameter in model.parameters()):
        return "is far larger than the model"
    return _of_all_processes(_why_unrelated(model, names, folder))


def _why_unrelated(model: PreTrainedModel, names: Collection[str], other: Path | PreTrainedModel) -> str | None:
    try:
        if isinstance(other, Path) and is_saved_in(model, other):
            return None
        kinship = find_kinship(model, names, other)
    except Exception as error:
        # Nobody has asked for what stands there, so it must not end a run.
        return f"does not fit ({str(error).split('. ')[0]})"
    if kinship is Kinship.UNRELATED:
        return "has other weights than the model could have been fine-tuned from"
    if kinship is Kinship.SAME:
        return "has the weights of the model" if isinstance(other, PreTrainedModel) else None
    return ""


def _named_in(folder: Path, skipped: list[str]) -> list[_Candidate]:
    """The models that the folder of a model names."""
    settings = _json(folder / REPORT_NAME).get("settings")
    saved = [
        (_json(folder / CONFIG_NAME).get("_name_or_path"), "configuration"),
        (settings.get("pretrained_model") if isinstance(settings, dict) else None, "report"),
    ]
    candidates = [_Candidate(name, place) for name, place in saved if isinstance(name, str) and name]
    card = BaseCard.read(folder / "README.md").fields
    base, relation = card.get("base_model"), card.get("base_model_relation")
    if isinstance(base, list):
        base = base[0] if len(base) == 1 else None
    if base is None:
        return candidates
    if relation in _OTHER_RELATIONS:
        skipped.append(f"{base!r}, which the card of the model names, is of the relation {relation!r}")
        return candidates
    return [*candidates, _Candidate(base, "card", is_model_itself=_CLEANED in card.get("tags", []))]


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _folder_of(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model on this machine, which may lie in the cache of the Hub."""
    try:
        if (Path(name) / CONFIG_NAME).is_file():
            return Path(name)
        cached = try_to_load_from_cache(name, CONFIG_NAME, revision=revision) if is_hub_id(name, Path()) else None
    except (OSError, ValueError):
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _of_all_processes(reason: str | None) -> str | None:
    return reason if set(gather_objects(reason)) == {reason} else "is another one in other processes"
