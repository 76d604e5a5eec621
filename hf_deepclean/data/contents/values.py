# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The one form of a value: equal contents give equal bytes, and others give others."""

import datetime
import hashlib
import pickle
from collections.abc import Iterable, Iterator, Mapping, Set
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..row_errors import reading_error
from .media import decoded, is_media


def digests_of_rows(rows: Iterable[Any], name: str, precision: type = np.float64) -> Iterator[bytes]:
    """
    Yields a digest of every row.

    Args:
        rows (`Iterable`):
            The rows.
        name (`str`):
            Names the data set in errors.
        precision (`type`, *optional*, defaults to `np.float64`):
            As for [`encoded`].

    Yields:
        `bytes`: 16 bytes for every row.

    Raises:
        [`DataError`]: If a row names a file that cannot be read. Says which row.
    """
    for place, row in enumerate(rows):
        try:
            content = encoded(row, precision)
        except Exception as error:
            raise reading_error(name, [place], None, error) from error
        yield hashlib.blake2b(content, digest_size=16).digest()


def encoded(value: Any, precision: type = np.float64) -> bytes:
    """
    Writes a value as bytes, which depend on its content alone.

    A number counts by its value, whatever its type: 1, 1.0 and True are the same, and so are 0.0 and -0.0. A list, a
    tuple, an array and a tensor are the same, and so are a missing entry of a dictionary and None. A picture is the
    array of its pixels, a sound its samples and their rate. A picture in grey is the same with one channel and with
    three, and an opaque one with and without its transparency. Text, bytes, numbers and times are never the same.

    Args:
        value (`Any`):
            The value.
        precision (`type`, *optional*, defaults to `np.float64`):
            Numbers with a fraction count as rounded to this type of numpy. If it is no double, only the first frame of
            an animation counts.

    Raises:
        `OSError`: If a file that the value names cannot be read.
    """
    if isinstance(value, str):
        return _encoded_text(str(value))
    # What rows mostly hold, in the same bytes as below and in less time.
    if type(value) in (int, bool) and -(2**63) <= value < 2**63:
        return b"u1()" + bytes([value]) if 0 <= value <= 255 else b"i8()" + value.to_bytes(8, "little", signed=True)
    if type(value) is np.ndarray and value.ndim == 1 and value.size and value.dtype.kind in "bi":
        kind = "u1" if np.minimum.reduce(value) >= 0 and np.maximum.reduce(value) <= 255 else "i8"
        return f"{kind}({value.size},)".encode() + value.astype(f"<{kind}").tobytes()
    if value is None:
        return b"none;"
    if is_media(value):
        return encoded(decoded(value, all_frames=precision is np.float64), precision)
    if isinstance(value, Mapping):
        entries = {_encoded_key(key): encoded(item, precision) for key, item in value.items() if item is not None}
        return _tagged("entries", b"".join(key + entries[key] for key in sorted(entries)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _tagged("bytes", bytes(value))
    array = as_array(value)
    if array is not None:
        return _encoded_numbers(array, precision)
    if isinstance(value, (list, tuple)):
        return _encoded_list(value, precision)
    if isinstance(value, Set):
        return _tagged("set", b"".join(sorted(encoded(item, precision) for item in value)))
    if isinstance(value, (np.ndarray, np.generic)):
        return encoded(_python_value(value), precision)
    if isinstance(value, (int, Decimal)):
        return _tagged("number", str(Fraction(value)).encode())
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return _encoded_time(value)
    if getattr(value, "__dict__", None):
        return _tagged("object", type(value).__qualname__.encode() + encoded(vars(value), precision))
    return _tagged("object", pickle.dumps(value, protocol=4))


def _encoded_text(text: str) -> bytes:
    return _tagged("text", text.encode("utf-8", "surrogatepass"))


# Every row has the same names of columns.
_encoded_name = lru_cache(1024)(_encoded_text)


def _encoded_key(key: Any) -> bytes:
    return _encoded_name(key) if type(key) is str else encoded(key)


def as_array(value: Any) -> np.ndarray | None:
    """A number, or a regular array or list of numbers, as an array of its own type. `None` for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to_dense().resolve_conj().resolve_neg()
        is_short = value.is_floating_point() and value.dtype not in (torch.float64, torch.float16)
        value = (value.float() if is_short else value).numpy()
    elif isinstance(value, (list, tuple)):
        return _array_of_list(value)
    elif isinstance(value, Decimal):
        value = _number_of_decimal(value)
    elif not isinstance(value, (np.ndarray, np.generic, int, float, complex)):
        return None
    array = np.asarray(value)
    if array.dtype == object and isinstance(value, int):
        # An integer of more than 64 bits.
        try:
            array = np.asarray(float(value)) if float(value) == value else array
        except OverflowError:
            return None
    return array if array.dtype.kind in "biufc" else None


def _array_of_list(values: Any) -> np.ndarray | None:
    first = values
    while isinstance(first, (list, tuple)) and len(first):
        first = first[0]
    if not isinstance(first, (list, tuple, int, float, complex, np.ndarray, np.generic)):
        return None
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        return None
    if array.dtype.kind not in "biufc":
        return None
    # Numpy rounds integers beside numbers with a fraction, or where some have 64 bits and others not.
    is_large = array.dtype.kind == "f" and array.size and np.abs(array).max() >= 2**53
    if not is_large:
        return array
    exact = np.asarray(values, dtype=object)
    if (array.astype(object) == exact).all():
        return array
    are_whole = all(isinstance(item, (int, np.integer)) and 0 <= item < 2**64 for item in exact.flat)
    return exact.astype(np.uint64) if are_whole else None


def _encoded_list(values: Any, precision: type) -> bytes:
    items = [decoded(item, all_frames=precision is np.float64) if is_media(item) else item for item in values]
    first = as_array(items[0])
    if first is not None:
        # A list of pictures or of tensors is one array, if their shapes agree.
        arrays = [as_array(item) for item in items]
        if all(array is not None and array.shape == first.shape for array in arrays):
            whole = np.stack(arrays) if first.ndim else _array_of_list([array.tolist() for array in arrays])
            if whole is not None:
                return _encoded_numbers(whole, precision)
    return f"list {len(items)}:".encode() + b"".join(encoded(item, precision) for item in items)


def _encoded_numbers(array: np.ndarray, precision: type) -> bytes:
    array = _without_idle_channels(_by_value(array, precision))
    return (
        f"{array.dtype.kind}{array.itemsize}{array.shape}".encode()
        + array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    )


def _by_value(array: np.ndarray, precision: type) -> np.ndarray:
    """Integers as the shorter of uint8 and int64 that holds them, others as that of float32 and float64."""
    kind = array.dtype.kind
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype == np.uint8:
        return array
    if kind in "bi" or kind == "u" and array.max() < 2**63:
        return _shortest(array)
    if kind == "u":
        rounded = array.astype(np.float64)
        if (rounded >= 2**64).any() or (rounded.astype(np.uint64) != array).any():
            return array.astype(np.uint64)
        array = rounded
    if kind == "c":
        parts = np.stack([array.real, array.imag], -1).astype(np.float64)
        return array.astype(np.complex128) if parts[..., 1].any() else _by_value(parts[..., 0], precision)
    if _is_whole(array):
        return _shortest(array)
    with np.errstate(over="ignore"):
        shortened = array.astype(np.float16) if precision is np.float16 else array
        rounded = np.array(shortened, np.float32)
    if precision is np.float64 and not np.array_equal(rounded, array, equal_nan=True):
        rounded = np.array(array, np.float64)
    # Adding nothing makes -0.0 to 0.0. There are many NaN.
    rounded += 0
    rounded[np.isnan(rounded)] = np.nan
    return _shortest(rounded) if _is_whole(rounded) else rounded


def _shortest(whole: np.ndarray) -> np.ndarray:
    return whole.astype(np.uint8 if whole.min() >= 0 and whole.max() <= 255 else np.int64)


def _is_whole(array: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((array == np.rint(array)).all() and (np.abs(array) < np.float64(2**63)).all())


def _without_idle_channels(array: np.ndarray) -> np.ndarray:
    """A picture, or several of one size, without the channels that say nothing."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4):
        return array
    if array.shape[-1] == 4 and (array[..., 3] == 255).all():
        array = array[..., :3]
    is_grey = array.shape[-1] < 4 and (array == array[..., :1]).all()
    return _without_idle_channels(array[..., 0]) if is_grey else array


def _python_value(value: Any) -> Any:
    """Texts, bytes, times and objects of numpy as those of Python."""
    if value.dtype.kind in "mM" and np.datetime_data(value.dtype)[0] in ("ns", "ps", "fs", "as"):
        rounded = value.astype(f"{value.dtype.kind}8[us]")
        value = rounded if (rounded == value).all() else value.astype(str)
    return value.tolist()


def _number_of_decimal(value: Decimal) -> Any:
    if value.is_finite() and value == value.to_integral_value():
        return int(value)
    return float(value) if not value.is_finite() or Decimal(float(value)) == value else None


def _encoded_time(value: Any) -> bytes:
    if isinstance(value, datetime.timedelta):
        return _tagged("duration", str(value).encode())
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.timezone.utc)
    return _tagged("time", value.isoformat().encode())


def _tagged(tag: str, content: bytes) -> bytes:
    return f"{tag} {len(content)}:".encode() + content
