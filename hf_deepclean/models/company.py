# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Sees whether the result of a row depends on the rows beside it in a batch, and keeps such rows apart."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.batches import IGNORED, num_examples, split_labels
from .contexts import is_autocasting
from .heads import without_padding
from .likelihood import Likelihood
from .rows import OWN_ROWS_HINT, select_examples, unexplained_tensors


logger = logging.getLogger(__name__)

MIXES_EXAMPLES = (
    "A batch normalisation layer without running statistics (`track_running_stats=False`) mixes the examples of a "
    "batch, so that the model has no per-example log-likelihood and no Fisher information."
)

# Largest difference by rounding, relative to the log-likelihood and the number of scored tokens.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}
_ROUNDING_OF_ACCELERATORS = 5e-3
_ROUNDING_OF_HALF_PRECISION = 5e-2

# A batch is looked at again if its longest row is longer by this factor than any before.
_GROWTH = 1.25

# Number of rows that a look runs together.
_MAX_ROWS = 4


class Company:
    """
    Decides which rows of a batch may run together without changing each other's results.

    Rotary embeddings that are scaled by the longest sequence (`"longrope"`, `"dynamic"`) are known. Rows on the same
    side of the length at which they change run together. All other dependence is seen by running a row alone and in
    company. Then every row runs alone, without the padding that the other rows gave it.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, in eval mode while this is used.
        has_fixed_length (`Callable`, *optional*):
            Called without arguments if padding makes a difference. Returns whether the collator pads all rows to one
            length, so that padding is a part of a row. By default it does not.

    Attributes:
        reason (`str`, *optional*): Why every row runs alone.
        longest (`int`): Length of the longest batch that was looked at.
    """

    def __init__(self, model: nn.Module, has_fixed_length: Callable[[], bool] | None = None) -> None:
        self.model = model
        self.reason: str | None = None
        self.longest = 0
        self._has_fixed_length = has_fixed_length
        # Block-sparse models give up their attention for good when they meet a short row.
        self.can_cut = not any(getattr(module, "attention_type", None) == "block_sparse" for module in model.modules())
        self._embeddings = list(_scaled_embeddings(model))
        self._num_virtual = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0

    @cached_property
    def cuts(self) -> bool:
        """Whether rows run without padding where padding makes a difference."""
        return self.can_cut and not (self._has_fixed_length is not None and self._has_fixed_length())

    @property
    def separates(self) -> bool:
        """Whether rows may have to run apart."""
        return self.reason is not None or bool(self._embeddings)

    def kinds(self, batch: Mapping[str, Any]) -> list[Hashable] | None:
        """A value for every row of a prepared batch. Rows of equal values may run together; `None`: all rows may."""
        if self.reason is not None:
            return list(range(num_examples(batch)))
        if not self._embeddings:
            return None
        lengths = row_lengths(batch)
        lengths = [length + self._num_virtual for length in (lengths if self.cuts else [_width(batch)] * len(lengths))]
        return [
            tuple((length if exactly else 1) if length > limit else 0 for _, exactly, limit in self._embeddings)
            for length in lengths
        ]

    def parts(self, batch: Mapping[str, Any]) -> list[list[int]]:
        """The rows of a prepared batch in groups that may run together."""
        kinds = self.kinds(batch) or [None] * num_examples(batch)
        return [[row for row, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)]

    def take(self, batch: Mapping[str, Any], rows: Sequence[int]) -> Mapping[str, Any]:
        """Some rows of a prepared batch that run together next, without padding from other rows where it matters."""
        if not self.separates:
            return batch if len(rows) == num_examples(batch) else select_examples(self.model, batch, rows)
        for module, exactly, limit in self._embeddings:
            if exactly:
                _rewind(module, limit)
        taken = select_examples(self.model, batch, rows)
        return without_padding(self.model, taken) if self.cuts else taken

    def wants(self, batch: Mapping[str, Any]) -> bool:
        """Whether [`~Company.look`] would look at this batch."""
        is_longer = self.longest == 0 or _width(batch) > _GROWTH * self.longest
        return self.reason is None and is_longer and num_examples(batch) > 1

    def look(self, batch: Mapping[str, Any], likelihood: Likelihood, together: torch.Tensor | None = None) -> None:
        """
        Compares rows alone and in company, on the first batch and on clearly longer ones. Sets `reason`, with a
        warning, if they differ by more than rounding.

        Args:
            batch (`dict[str, Any]`):
                A prepared batch whose rows may run together as far as is known.
            likelihood ([`Likelihood`]):
                How rows are scored.
            together (`torch.Tensor`, *optional*):
                The log-likelihoods of all rows in company, if they are known.

        Raises:
            `ValueError`: If a tensor whose rows are not known makes the difference.
        """
        if not self.wants(batch):
            return
        lengths, size = row_lengths(batch), num_examples(batch)
        self.longest = _width(batch)
        shortest = min(range(size), key=lengths.__getitem__)
        rows = [shortest, size - 1 if shortest != size - 1 else 0]
        device = next(self.model.parameters()).device
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if together is None:
                others = [row for row in range(size) if row not in rows]
                others = sorted(others, key=lengths.__getitem__, reverse=True)[: _MAX_ROWS - 2]
                # Where there is room for so many tokens, the last ones have none.
                together = self._scores(select_examples(self.model, batch, others + rows), likelihood)
                together = together[len(others) :]
            else:
                together = together[rows]
            counts = torch.tensor([_num_scored(batch, row) for row in rows]).to(together)
            tolerance = self._tolerance(device) * (together.abs() + counts)
            unpadded = self._alone(batch, rows, likelihood, cut=self.can_cut)
            if unpadded is None or not ((unpadded - together).abs() > tolerance).any():
                return
            alone = self._alone(batch, rows, likelihood, cut=False)
        by_padding = alone is not None and not ((alone - together).abs() > tolerance).any()
        if by_padding and not self.cuts:
            return
        names = unexplained_tensors(self.model, batch)
        if names and not by_padding:
            raise ValueError(
                f"The log-likelihood of a row alone is not that in its batch, and it is not known which entries of "
                f"{names} belong to the row, because their number is not that of the {size} rows. {OWN_ROWS_HINT}"
            )
        self.keep_apart("on the length to which they are padded" if by_padding else "on the other rows of their batch")

    def keep_apart(self, what: str) -> None:
        """Makes every row run alone from now on, with a warning that says what results depend on."""
        if any(isinstance(module, _BatchNorm) and module.running_mean is None for module in self.model.modules()):
            raise ValueError(MIXES_EXAMPLES)
        self.reason = f"results of {type(self.model).__name__} depend {what}"
        logger.warning(
            f"The results of {type(self.model).__name__} for a row depend {what}. Every row runs alone and without "
            "padding, which is slower."
        )

    def _alone(
        self, batch: Mapping[str, Any], rows: Sequence[int], likelihood: Likelihood, cut: bool
    ) -> torch.Tensor | None:
        scores = []
        for row in rows:
            one = select_examples(self.model, batch, [row])
            try:
                scores.append(self._scores(without_padding(self.model, one) if cut else one, likelihood))
            except (RuntimeError, ValueError, IndexError):
                # Not every model takes rows as short as these, or without what the batch holds for all rows.
                return self._alone(batch, rows, likelihood, cut=False) if cut else None
        return torch.cat(scores)

    def _scores(self, batch: Mapping[str, Any], likelihood: Likelihood) -> torch.Tensor:
        inputs, labels = split_labels(batch)
        return likelihood(inputs, self.model(**inputs), labels).double().cpu()

    def _tolerance(self, device: torch.device) -> float:
        dtypes = {parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point()}
        if any(dtype.itemsize < 4 for dtype in dtypes) or is_autocasting(self.model):
            return _ROUNDING_OF_HALF_PRECISION
        tolerance = max(_ROUNDING[dtype] for dtype in dtypes)
        return tolerance if device.type == "cpu" else max(tolerance, _ROUNDING_OF_ACCELERATORS)


def row_lengths(batch: Mapping[str, Any]) -> list[int]:
    """The number of positions of every row of a prepared batch up to its last token that is not padding."""
    size, mask = num_examples(batch), batch.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and len(mask) == size and mask.shape[1]:
        positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        return ((mask != 0) * positions).amax(dim=1).tolist()
    return [_width(batch)] * size


def _width(batch: Mapping[str, Any]) -> int:
    tokens = next((batch[key] for key in ("input_ids", "inputs_embeds") if batch.get(key) is not None), None)
    return tokens.shape[1] if isinstance(tokens, torch.Tensor) and tokens.ndim > 1 else 1


def _num_scored(batch: Mapping[str, Any], row: int) -> int:
    labels = split_labels(batch)[1][row]
    return 1 if labels.is_floating_point() else max(1, int((labels != IGNORED).sum()))


def _scaled_embeddings(model: nn.Module) -> Any:
    """Rotary embeddings that depend on the longest row: the module, whether on its exact length, and from where on."""
    for module in model.modules():
        types, config = getattr(module, "rope_type", None), getattr(module, "config", None)
        parameters = getattr(config, "rope_parameters", None)
        if types is None or not isinstance(parameters, Mapping):
            continue
        layers = {None: types} if isinstance(types, str) else types
        for layer, rope_type in layers.items():
            own = parameters if layer is None else parameters.get(layer, {})
            if rope_type == "longrope":
                yield module, False, own["original_max_position_embeddings"]
            elif "dynamic" in rope_type and not own.get("alpha"):
                yield module, True, module.original_max_seq_len


def _rewind(module: nn.Module, limit: int) -> None:
    """Forgets the lengths of earlier rows, of which the frequencies of a dynamic embedding would keep the longest."""
    # A buffer in some models, a plain attribute in others.
    for name in [name for name in (*module._buffers, *vars(module)) if name.endswith("original_inv_freq")]:
        prefix = name.removesuffix("original_inv_freq")
        current, original = getattr(module, f"{prefix}inv_freq"), getattr(module, name)
        module.register_buffer(f"{prefix}inv_freq", original.clone().to(current.device), persistent=False)
        if hasattr(module, f"{prefix}max_seq_len_cached"):
            setattr(module, f"{prefix}max_seq_len_cached", limit)
    module.max_seq_len_cached = limit
