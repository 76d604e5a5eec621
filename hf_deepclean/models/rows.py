# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Takes rows out of a batch, also where the images, videos or sounds of all rows share one axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..data.batches import num_examples


# Parts of the names of a model's inputs, by what they hold. A name belongs to the first kind that it fits.
_NAMES = {
    "video": ("video", "second_per_grid"),
    "audio": ("audio", "input_features", "feature_attention_mask", "input_values"),
    "image": ("image", "pixel", "patch", "spatial_shapes", "target_sizes", "vision", "num_crops"),
}

# Where one of these is given, images have an axis of their own behind that of the rows.
_IMAGES_BY_ROW = ("aspect_ratio_ids", "image_attention_mask")

# Counts of images by row, as some processors give them.
_IMAGE_COUNTS = ("batch_num_images", "images_per_sample")

# The values of `mm_token_type_ids`.
_TOKEN_TYPES = {"image": 1, "video": 2, "audio": 3}


OWN_ROWS_HINT = (
    "Let the collator give the tensor a first axis of the rows, or use batches of one row "
    "(`per_device_fisher_batch_size=1`, `per_device_eval_batch_size=1` and `per_device_train_batch_size=1`)."
)


def select_examples(model: nn.Module, batch: Mapping[str, Any], examples: Sequence[int]) -> dict[str, Any]:
    """
    Takes some rows of a batch.

    Tensors of images, videos and sounds may have an entry for every image or patch instead of every row. Their rows
    are told by [`shares_of_rows`]. If the chosen rows have no entry, the tensor is left out, as collators do.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, whose configuration names the tokens that stand for images.
        batch (`dict[str, Any]`):
            Model inputs and labels.
        examples (`Sequence[int]`):
            Indices of the rows, which may repeat.

    Returns:
        `dict[str, Any]`: A batch of these rows.

    Raises:
        `ValueError`: As [`shares_of_rows`].
    """
    examples, size = list(examples), num_examples(batch)
    if examples == list(range(size)):
        return dict(batch)
    shares, selected = shares_of_rows(model, batch), {}
    for key, value in batch.items():
        if key in shares:
            ends = [0]
            for share in shares[key]:
                ends.append(ends[-1] + share)
            entries = [entry for example in examples for entry in range(ends[example], ends[example + 1])]
            if entries:
                selected[key] = value[entries] if isinstance(value, torch.Tensor) else [value[i] for i in entries]
        elif _has_positions_of_several_axes(key, value, batch):
            selected[key] = value[:, examples]
        elif isinstance(value, torch.Tensor) and value.ndim and len(value) == size:
            selected[key] = value[examples]
        else:
            selected[key] = value
    return selected


def shares_of_rows(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, list[int]]:
    """
    Finds out how many entries of the tensors of images, videos and sounds belong to each row. Entries are in the order
    of the rows.

    In the text of a row, tokens stand for its images. So an image belongs to the row whose tokens it fills: by the
    size that a grid gives it, by the uninterrupted runs of such tokens, or by equal shares of them.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        batch (`dict[str, Any]`):
            Model inputs and labels.

    Returns:
        `dict[str, list[int]]`: The number of entries of every row, by tensor. Other tensors have one entry per row.

    Raises:
        `ValueError`: If it cannot be told which rows the entries of a tensor belong to.
    """
    size, config, shares = num_examples(batch), getattr(model, "config", None), {}
    for kind, keys in _tensors_by_kind(batch).items():
        ids = (getattr(config, f"{kind}_token_{end}", None) for end in ("id", "index"))
        token = next((found for found in ids if found is not None), None)
        if token is None or any(name in batch for name in _IMAGES_BY_ROW):
            continue
        if getattr(batch.get("pixel_attention_mask"), "ndim", 0) == 4:
            continue
        candidates = list(_candidates(batch, kind, keys, token))
        for key in keys:
            shares[key] = _shares(key, len(batch[key]), size, candidates)
    return shares


def row_signatures(model: nn.Module, batch: Mapping[str, Any]) -> list[Any] | None:
    """
    Describes the images, videos and sounds of every row by their numbers and sizes. In a batch of rows with equal
    descriptions, all tensors have as many entries for one row as for another.

    Args:
        model, batch:
            As for [`shares_of_rows`].

    Returns:
        `list`, *optional*: A value for every row, `None` if no tensor holds images, videos or sounds.
    """
    shares = shares_of_rows(model, batch)
    if not shares:
        return None
    parts = []
    for key, counts in sorted(shares.items()):
        value, values = batch[key], [()] * len(counts)
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and value.ndim <= 2:
            # Sizes, such as the grid of an image; masks of pixels are longer.
            if value.ndim == 1 or value.shape[1] <= 4:
                values = [tuple(part.flatten().tolist()) for part in value.cpu().split(counts)]
        parts.append([(key, count, sizes) for count, sizes in zip(counts, values, strict=True)])
    return list(zip(*parts, strict=True))


def unexplained_tensors(model: nn.Module, batch: Mapping[str, Any]) -> list[str]:
    """The tensors that [`select_examples`] gives to every selection as a whole, because they have another length."""
    size = num_examples(batch)
    shares = shares_of_rows(model, batch)
    return [
        key
        for key, value in batch.items()
        if isinstance(value, torch.Tensor)
        and value.ndim
        and len(value) not in (1, size)
        and key not in shares
        and not _has_positions_of_several_axes(key, value, batch)
    ]


def _tensors_by_kind(batch: Mapping[str, Any]) -> dict[str, list[str]]:
    tokens, found = batch.get("input_ids"), {}
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2:
        return {}
    for key, value in batch.items():
        is_tensor = isinstance(value, torch.Tensor)
        if not (is_tensor and value.ndim or isinstance(value, (list, tuple))) or key in _IMAGE_COUNTS:
            continue
        if is_tensor and value.shape == tokens.shape and not value.is_floating_point():
            continue
        kind = next((kind for kind, names in _NAMES.items() if any(name in key for name in names)), None)
        if kind is not None:
            found.setdefault(kind, []).append(key)
    return found


def _candidates(batch: Mapping[str, Any], kind: str, keys: Sequence[str], token: int) -> Iterator[Any]:
    """Ways to divide entries among the rows, the surest first: lists of counts, and a function of the number."""
    stands = batch["input_ids"].cpu() == token
    if not stands.any() and isinstance(batch.get("mm_token_type_ids"), torch.Tensor):
        stands = batch["mm_token_type_ids"].cpu() == _TOKEN_TYPES[kind]
    tokens = stands.sum(dim=1).tolist()
    if kind == "image":
        for key in _IMAGE_COUNTS:
            if isinstance(batch.get(key), torch.Tensor):
                yield batch[key].flatten().tolist()
    grid = batch.get(f"{kind}_grid_thw")
    if isinstance(grid, torch.Tensor):
        patches = grid.cpu().prod(dim=1).tolist()
        merged = batch.get(f"{kind}_merge_sizes")
        merges = merged.cpu().tolist() if isinstance(merged, torch.Tensor) else [1] * len(patches)
        images = _filling(tokens, [count / merge**2 for count, merge in zip(patches, merges, strict=True)])
        # Without the grids nothing else can be trusted.
        if images is not None:
            yield images
            yield [sum(patches[sum(images[:row]) : sum(images[: row + 1])]) for row in range(len(images))]
        return
    for key in keys:
        value = batch[key]
        if isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == 2 and not value.is_complex():
            images = _filling(tokens, value.cpu().double().prod(dim=1).tolist())
            if images is not None:
                yield images
    before = torch.nn.functional.pad(stands, (1, 0))[:, :-1]
    yield (stands & ~before).sum(dim=1).tolist()
    total = sum(tokens)

    def evenly(number: int) -> list[int] | None:
        shares = [count * number / total for count in tokens] if total else [0.5]
        return None if total % number and number % total else _whole(shares)

    yield evenly


def _shares(key: str, number: int, size: int, candidates: Sequence[Any]) -> list[int]:
    if number == 0:
        return [0] * size
    for candidate in candidates:
        shares = candidate(number) if callable(candidate) else candidate
        if shares is not None and len(shares) == size and sum(shares) == number:
            return shares
    if size == 1:
        return [number]
    if number == size:
        return [1] * size
    raise ValueError(
        f"The batch has {size} rows, and `{key}` has {number} entries, but neither grids nor the tokens that stand "
        f"for images, videos or sounds tell which rows they belong to. {OWN_ROWS_HINT}"
    )


def _filling(tokens: Sequence[int], weights: Sequence[float]) -> list[int] | None:
    """Gives images to rows in order, so that each row's tokens are filled; `None` if images do not fit the rows."""
    total = sum(weights)
    lengths = _whole([weight * sum(tokens) / total for weight in weights]) if total and sum(tokens) else None
    if lengths is None or not all(lengths):
        return None
    images, position = [], 0
    for count in tokens:
        first = position
        while count > 0 and position < len(lengths):
            count -= lengths[position]
            position += 1
        if count:
            return None
        images.append(position - first)
    return images if position == len(lengths) else None


def _whole(values: Sequence[float]) -> list[int] | None:
    rounded = [round(value) for value in values]
    return rounded if all(abs(a - b) < 1e-6 for a, b in zip(values, rounded, strict=True)) else None


def _has_positions_of_several_axes(key: str, value: Any, batch: Mapping[str, Any]) -> bool:
    """Whether positions in time, height and width come first, as `(3, batch_size, length)`."""
    tokens = batch.get("input_ids")
    return (
        key == "position_ids"
        and isinstance(value, torch.Tensor)
        and isinstance(tokens, torch.Tensor)
        and value.ndim == tokens.ndim + 1
        and value.shape[1:] == tokens.shape
    )
