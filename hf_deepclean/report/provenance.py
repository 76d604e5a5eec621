# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: the original model's Hub id, commit and card metadata, and the library versions."""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from transformers.utils import CONFIG_NAME, logging

from ..models.adapters.parameters import ADAPTER_CONFIG_NAME
from .base_card import BaseCard, is_hub_id


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Provenance:
    """
    Where the model before unlearning comes from. All of it may be published.

    Args:
        base_model (`str`, *optional*): Its id on the Hub, for an adapter that of the base model. None for a local
            model.
        revision (`str`, *optional*): The commit that it was loaded from.
        card (`dict[str, Any]`): The metadata of its card that the new card takes over, see [`BaseCard`].
    """

    base_model: str | None = None
    revision: str | None = None
    card: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> "Provenance":
        """
        Finds out where a model was loaded from.

        If a model of the Hub has no card in the cache, the Hub is asked once for the metadata. If it does not answer,
        `card` is empty. A card never ends a run: what the new card cannot take over is warned of once and left out.

        Args:
            model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
                The model, or the path or id that it is loaded from.
        """
        source = model if isinstance(model, (str, os.PathLike)) else getattr(model, "name_or_path", None)
        base = name = str(source or "")
        if hasattr(model, "active_peft_config"):
            base = str(model.active_peft_config.base_model_name_or_path or "")
        base_model, revision = _on_the_hub(base)
        card = _card_of(name)
        for sentence in card.left_out:
            # Once, although a rehearsal reads the card too.
            logger.warning_once(sentence)
        return cls(base_model, revision, card.fields)

    def named(self, base_model: str) -> "Provenance":
        """The same provenance with another name. Its commit is unknown."""
        return Provenance(base_model, None, self.card)


def _on_the_hub(name: str) -> tuple[str | None, str | None]:
    """The id and the commit of a model that was loaded from the Hub. A local path may look like an id."""
    if not is_hub_id(name, Path()):
        return None, None
    for file in (CONFIG_NAME, ADAPTER_CONFIG_NAME):
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return name, Path(cached).parent.name
    return None, None


def _card_of(name: str) -> BaseCard:
    if not name:
        return BaseCard()
    path: Any = Path(name) / "README.md"
    try:
        if not os.path.lexists(path):
            path = try_to_load_from_cache(name, "README.md") if is_hub_id(name, Path()) else None
    except OSError:
        return BaseCard()
    if isinstance(path, (str, Path)):
        return BaseCard.read(path)
    if _on_the_hub(name) != (None, None):
        # Offline, without access, or deleted: the new card does without the metadata.
        with suppress(Exception):
            return BaseCard.of(HfApi().model_info(name, timeout=5).card_data.to_dict())
    return BaseCard()


def library_versions(*, with_peft: bool = False) -> dict[str, str]:
    """
    The versions of Python and of the libraries that decide the bits of a result.

    Args:
        with_peft (`bool`, *optional*, defaults to `False`):
            Whether to include peft.
    """
    packages = ["hf-deepclean", "torch", "transformers", "datasets", "accelerate", "safetensors"]
    packages += ["peft"] if with_peft else []
    return {"python": platform.python_version()} | {package: version(package) for package in packages}
