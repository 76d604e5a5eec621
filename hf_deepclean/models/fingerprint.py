# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a model: a digest of its weights."""

import hashlib
import json

import torch
from torch import nn


# Large tensors are copied to the CPU in chunks of this size.
_CHUNK_BYTES = 2**26


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """
    SHA-256 over the names, dtypes, shapes and bytes of all parameters and persistent buffers.

    Equal fingerprints mean equal bits. The model's device and which parameters require gradients do not matter. A
    tensor with several names counts once, under the first of them in alphabetical order. At most one tensor is copied
    at a time, if it is not contiguous or sharded.

    Args:
        model (`torch.nn.Module`):
            The model. If its tensors are sharded over processes ([`~torch.distributed.tensor.DTensor`]), all processes
            must call this. They get the fingerprint of the whole tensors, which are gathered one at a time.

    Returns:
        `str`: 64 hexadecimal digits.

    Raises:
        `ValueError`: If a tensor is on the meta device and has no bytes.
    """
    digest = hashlib.sha256()
    seen = set()
    # A compiled model wraps the module whose names have no prefix.
    stored = getattr(model, "_orig_mod", model).state_dict(keep_vars=True)
    for name in sorted(stored):
        tensor = stored[name]
        if isinstance(tensor, torch.Tensor) and tensor not in seen:
            seen.add(tensor)
            _update_digest(digest, name, tensor.detach())
    return digest.hexdigest()


def _update_digest(digest: "hashlib._Hash", name: str, tensor: torch.Tensor) -> None:
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    elif hasattr(tensor, "__tensor_flatten__"):
        for part in tensor.__tensor_flatten__()[0]:
            _update_digest(digest, f"{name}.{part}", getattr(tensor, part))
        return
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device and has no values, so the weights have no fingerprint.")
    # JSON also hashes where one entry ends and the next begins.
    digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    entries = tensor.reshape(-1)
    for chunk in entries.split(max(1, _CHUNK_BYTES // tensor.element_size())):
        digest.update(chunk.cpu().contiguous().view(torch.uint8).numpy())
