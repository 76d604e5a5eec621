# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""SGD that trains selected weights only."""

from collections.abc import Iterable, Mapping

import torch


class SparseSGD(torch.optim.Optimizer):
    """
    SGD with momentum on selected weights: the counterpart of [`SparseAdamW`]. Other weights have no state and are
    never written.

    Args:
        params (`Iterable`):
            Pairs `(name, parameter)`.
        indices (`dict[str, torch.Tensor]`):
            The flat indices of the weights to train, by parameter name. Parameters without an entry stay as they are.
        lr, momentum, weight_decay (`float`):
            As for [`torch.optim.SGD`].
    """

    def __init__(
        self,
        params: Iterable[tuple[str, torch.Tensor]],
        indices: Mapping[str, torch.Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.indices = {
            name: indices[name].to(parameter.device)
            for group in self.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
            if name in indices
        }

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of the chosen entries."""
        for group in self.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if name not in self.indices or parameter.grad is None:
                    continue
                chosen, state = self.indices[name], self.state[parameter]
                values = torch.take(parameter, chosen)
                update = torch.take(parameter.grad, chosen).add_(values, alpha=group["weight_decay"])
                if state:
                    update = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                state["momentum_buffer"] = update
                parameter.put_(chosen, values.sub_(update, alpha=group["lr"]))
