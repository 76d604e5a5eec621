# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Unpacks documents that share a row, and moves and cuts padding."""

from collections.abc import Mapping
from typing import Any

import torch

from .batches import IGNORED, LABELS, SPAN_LABELS, num_examples


# Keys that collators add to tell the documents of a row apart.
_PACKING_KEYS = (
    "position_ids",
    "seq_idx",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
    "seq_lengths",
)


def unpack_documents(batch: Mapping[str, Any], pad_token_id: int = 0) -> Mapping[str, Any]:
    """
    Gives every document of a packed batch a row of its own, padded at the right.

    A row is packed if its `position_ids` restart. Without `position_ids`, `cu_seq_lens_q` and `seq_idx` are read, as
    [`~transformers.DataCollatorWithFlattening`] writes them.

    Args:
        batch (`dict[str, Any]`):
            Model inputs and labels. Every tensor of shape `(num_rows, length, ...)` is unpacked.
        pad_token_id (`int`, *optional*, defaults to `0`):
            The token that pads `input_ids`.

    Returns:
        `dict[str, Any]`: The unpacked batch with an `attention_mask` and without the packing keys, or the batch itself
        if it is not packed.

    Raises:
        `ValueError`: If there are neither labels for every token nor for every document.
    """
    tokens = batch.get("input_ids")
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2:
        return batch
    mask = batch.get("attention_mask")
    attended = torch.ones_like(tokens, dtype=torch.bool)
    if isinstance(mask, torch.Tensor) and mask.shape == tokens.shape:
        attended = mask.bool()
    starts = _document_starts(batch, attended)
    if starts is None or (starts.sum(dim=1) <= 1).all():
        return batch
    document = starts.flatten().cumsum(0).view_as(starts)[attended] - 1
    lengths = document.bincount()
    column = torch.arange(len(document), device=tokens.device) - (lengths.cumsum(0) - lengths)[document]
    shape = (len(lengths), int(lengths.max()))
    unpacked = {key: value for key, value in batch.items() if key not in _PACKING_KEYS}
    unpacked["attention_mask"] = torch.ones_like(tokens)
    for key, value in unpacked.items():
        if isinstance(value, torch.Tensor) and value.shape[:2] == tokens.shape:
            rows = value.new_full(shape + value.shape[2:], {LABELS: IGNORED, "input_ids": pad_token_id}.get(key, 0))
            rows[document, column] = value[attended]
            unpacked[key] = rows
    if num_examples(unpacked) != len(lengths):
        raise ValueError(
            f"A packed batch holds {len(lengths)} documents but {num_examples(unpacked)} labels. Give every token or "
            "every document a label, or do not pack."
        )
    return unpacked


def pad_right(batch: Mapping[str, Any], *, labels_follow_inputs: bool = True) -> Mapping[str, Any]:
    """
    Moves padding from the left of the rows to the right, so that absolute positions start with the first token.

    Args:
        batch (`dict[str, Any]`):
            Model inputs and labels.
        labels_follow_inputs (`bool`, *optional*, defaults to `True`):
            Whether labels of the inputs' length belong to the positions of the inputs, not to those of a decoder.

    Returns:
        `dict[str, Any]`: The batch with every tensor of the attention mask's shape moved, with adjusted start and end
        positions, and without columns that are padding in every row. The batch itself if no row is padded at the left.
    """
    mask = _padding_mask(batch)
    if mask is None or mask[..., 0].all():
        return batch
    padding = _num_leading(mask)
    if not padding.any():
        return batch
    moved = dict(batch)
    for key in _sequence_keys(batch, mask, labels_follow_inputs):
        moved[key] = _roll_left(batch[key], padding)
    if mask.ndim == 2:
        for key in SPAN_LABELS:
            if isinstance(batch.get(key), torch.Tensor):
                moved[key] = batch[key] - padding.view_as(batch[key])
    return cut_padding(moved, labels_follow_inputs=labels_follow_inputs)


def cut_padding(batch: Mapping[str, Any], *, labels_follow_inputs: bool = True) -> Mapping[str, Any]:
    """Cuts columns at the right that are padding in every row; see [`pad_right`]."""
    mask = _padding_mask(batch)
    if mask is None or mask[..., -1].any() or not mask.any():
        return batch
    length = int(mask.flatten(0, -2).any(dim=0).nonzero().max()) + 1
    cut = {
        key: batch[key].narrow(mask.ndim - 1, 0, length) for key in _sequence_keys(batch, mask, labels_follow_inputs)
    }
    return {**batch, **cut}


def pad_labels_right(labels: torch.Tensor) -> torch.Tensor:
    """Moves leading -100 in rows of token labels to the end. Returns the same tensor if there are none."""
    padding = _num_leading(labels != IGNORED)
    return _roll_left(labels, padding) if padding.any() else labels


def _document_starts(batch: Mapping[str, Any], attended: torch.Tensor) -> torch.Tensor | None:
    positions, boundaries, documents = (batch.get(key) for key in ("position_ids", "cu_seq_lens_q", "seq_idx"))
    if isinstance(positions, torch.Tensor) and positions.shape == attended.shape:
        first = positions.gather(1, attended.int().argmax(dim=1, keepdim=True))
        return attended & (positions == first)
    if boundaries is not None and len(attended) == 1:
        starts = torch.zeros_like(attended)
        starts[0, torch.as_tensor(boundaries)[:-1].long()] = True
        return starts
    if isinstance(documents, torch.Tensor) and documents.shape == attended.shape:
        return torch.cat([torch.ones_like(attended[:, :1]), documents[:, 1:] != documents[:, :-1]], dim=1) & attended
    return None


def _padding_mask(batch: Mapping[str, Any]) -> torch.Tensor | None:
    """The attention mask, if it tells for every token whether it is padding."""
    mask, tokens, embeddings = (batch.get(key) for key in ("attention_mask", "input_ids", "inputs_embeds"))
    shape = tokens.shape if isinstance(tokens, torch.Tensor) else getattr(embeddings, "shape", (None,))[:-1]
    if not isinstance(mask, torch.Tensor) or mask.shape != shape or mask.ndim < 2:
        return None
    # Positions with several axes (images, videos) do not have the mask's shape and would not be moved.
    positions = batch.get("position_ids")
    return None if isinstance(positions, torch.Tensor) and positions.shape != shape else mask.bool()


def _sequence_keys(batch: Mapping[str, Any], mask: torch.Tensor, labels_follow_inputs: bool) -> list[str]:
    return [
        key
        for key, value in batch.items()
        if isinstance(value, torch.Tensor)
        and value.shape[: mask.ndim] == mask.shape
        # Images whose number of channels happens to equal the length are not sequences.
        and (value.ndim == mask.ndim or not value.is_floating_point() or key in ("inputs_embeds", "bbox"))
        and not key.startswith("decoder_")
        and (key != LABELS or labels_follow_inputs)
    ]


def _num_leading(kept: torch.Tensor) -> torch.Tensor:
    """Number of leading false values of every row; 0 for rows with only false values."""
    return kept.int().argmax(dim=-1)


def _roll_left(tensor: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    rows = tensor.flatten(0, shifts.ndim - 1)
    length = rows.shape[1]
    columns = (torch.arange(length, device=tensor.device) + shifts.flatten()[:, None]) % length
    return rows[torch.arange(len(rows), device=tensor.device)[:, None], columns].view_as(tensor)
