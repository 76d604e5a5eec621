# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Says of an error in the rehearsal which step it would have ended, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def explained(step: str, memory_remedy: str = "Free memory, or use a smaller model or dtype.") -> Iterator[None]:
    """
    Adds to every error in the block which step of the run it would have ended. The type of the error stays.

    Args:
        step (`str`):
            The step and its rows, such as `"the repair, on 2 rows of `retain_dataset`"`.
        memory_remedy (`str`, *optional*):
            What to do if the memory did not suffice.

    Raises:
        The error, with the sentence. It is a `RuntimeError` if its type cannot be made of a message alone.
    """
    try:
        yield
    except Exception as error:
        remedy = f" {memory_remedy}" if _is_of_memory(error) else ""
        told = f"{_message(error)}{remedy} (The dress rehearsal tried {step}, and the run would have ended there.)"
        raise same_kind(error, told) from error


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _message(error: Exception) -> str:
    # The text of a KeyError is the repr of its key.
    text = str(error.args[0]) if isinstance(error, KeyError) and len(error.args) == 1 else str(error)
    return text or type(error).__name__


def same_kind(error: Exception, told: str) -> Exception:
    """
    An error of the same type with another message, or a `RuntimeError` if its type cannot be made of one.

    Args:
        error (`Exception`):
            The error.
        told (`str`):
            The message, which names the dress rehearsal.
    """
    with suppress(Exception):
        again = type(error)(told)
        if type(again) is type(error) and "dress rehearsal" in str(again):
            return again
    return RuntimeError(f"{type(error).__name__}: {told}")
