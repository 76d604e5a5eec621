# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A digest of the weights of a model."""

import hashlib

import torch
from torch import nn

from ..data.digests import update_digest


@torch.no_grad()
def weights_fingerprint(model: nn.Module) -> str:
    """
    SHA-256 over the names, dtypes, shapes and bytes of all parameters and persistent buffers.

    Equal fingerprints mean equal bits, wherever the model lies and whichever parameters require gradients. A tensor
    with several names counts once, under the first of them in alphabetical order. There is no second copy of the
    model at any time, but for one tensor where it is not contiguous or sharded.

    Args:
        model (`torch.nn.Module`):
            The model. Where its tensors are sharded over processes ([`~torch.distributed.tensor.DTensor`]), every
            process must call this, and gets the fingerprint of the whole tensors, which are gathered one at a time.

    Returns:
        `str`: 64 hexadecimal digits.

    Raises:
        `ValueError`: If a tensor is on the meta device and has no bytes.
    """
    digest = hashlib.sha256()
    seen = set()
    # Of a compiled model, those of the module under it, whose names have no prefix.
    stored = getattr(model, "_orig_mod", model).state_dict(keep_vars=True)
    for name in sorted(stored):
        tensor = stored[name]
        if isinstance(tensor, torch.Tensor) and tensor not in seen:
            seen.add(tensor)
            update_digest(digest, name, tensor.detach())
    return digest.hexdigest()
