# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""AdamW on single weights."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from ..runtime.shards import holders_of, local_indices, local_part, take_entries


# The devices on which torch updates a list of tensors in one kernel.
_FUSED_DEVICES = ("cpu", "cuda")


class SparseAdamW(torch.optim.Optimizer):
    """
    AdamW on the selected entries of parameters. Gradients, moments, weight decay and clipping use only these entries.

    Masking the gradients of an ordinary optimizer does not freeze a weight, since weight decay and momentum still move
    it. Here all other entries have no state and are never written. For a half-precision parameter the moments and a
    master copy of the selected entries are in float32. If a parameter is sharded, every process trains the selected
    entries of its shard, and the gradient norm is that of all shards.

    Weight decay is decoupled as in [AdamW](https://huggingface.co/papers/1711.05101).

    Args:
        params (`Iterable`):
            Named parameters `(name, parameter)`, or groups of them.
        indices (`dict[str, torch.Tensor]`):
            The flat int64 indices of the entries to train, by parameter name. A parameter without indices stays as it
            is.
        lr (`float`, *optional*, defaults to `1e-3`):
            Learning rate.
        betas (`tuple[float, float]`, *optional*, defaults to `(0.9, 0.999)`):
            Decay of the two moments.
        eps (`float`, *optional*, defaults to `1e-8`):
            Added to the root of the second moment.
        weight_decay (`float`, *optional*, defaults to `0.0`):
            Decoupled weight decay.
        max_grad_norm (`float`, *optional*, defaults to `0.0`):
            The largest norm of the gradients of the selected entries, over all groups. Larger gradients are scaled
            down. 0 never scales. `last_grad_norm` holds the norm of the last step before scaling.

    Raises:
        `ValueError`: If the parameters are not named, or an index lies outside its parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        indices: Mapping[str, torch.Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
    ) -> None:
        self.indices = dict(indices)
        self.max_grad_norm = max_grad_norm
        self.last_grad_norm = 0.0
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            if "param_names" not in group:
                raise ValueError(
                    "`SparseAdamW` was given parameters without names, but its indices are given by name. Pass "
                    "`model.named_parameters()`, or groups of (name, parameter) pairs."
                )
        self._holders = holders_of([parameter for group in self.param_groups for parameter in group["params"]])
        for name, parameter, _ in list(self._entries()):
            chosen = self.indices[name]
            if not 0 <= int(chosen.min()) <= int(chosen.max()) < parameter.numel():
                raise ValueError(f"The indices of {name} reach outside its {parameter.numel()} entries.")
            self.indices[name] = local_indices(parameter, chosen)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """
        Updates the selected entries.

        Args:
            closure (`Callable`, *optional*):
                Evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = []
        for name, parameter, group in self._entries():
            if parameter.grad is not None:
                values, _ = local_part(parameter)
                chosen = self.indices[name] = self.indices[name].to(values.device)
                gradient = _at_least_float32(take_entries(local_part(parameter.grad)[0], chosen))
                taken.append((parameter, chosen, group, gradient))
        gradients = [gradient for *_, gradient in taken]
        scale = self._clipping_scale(gradients)
        if scale != 1:
            torch._foreach_mul_(gradients, scale)
        for group in self.param_groups:
            self._update(group, [(p, chosen, gradient) for p, chosen, owner, gradient in taken if owner is group])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Loads the state of an optimizer on the same selection.

        Args:
            state_dict (`dict`):
                The output of `state_dict`.

        Raises:
            `ValueError`: If the state belongs to another selection.
        """
        names = [name for group in state_dict["param_groups"] for name in group.get("param_names", ())]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        saved = {
            name: state_dict["state"][n] for name, n in zip(names, numbers, strict=True) if n in state_dict["state"]
        }
        for name, state in saved.items():
            num_here = len(self.indices.get(name, ()))
            if len(state["exp_avg"]) != num_here:
                raise ValueError(
                    f"The optimizer state to resume from holds {len(state['exp_avg'])} entries of {name}, but "
                    f"{num_here} are selected: it belongs to another selection. Resume with the data, the seed and "
                    "the selection rule that the checkpoint was made with."
                )
        super().load_state_dict(state_dict)
        # The base class casts the state to the dtype of the parameter, which may be half precision.
        for name, parameter, _ in self._entries():
            for key, value in saved.get(name, {}).items():
                self.state[parameter][key] = value.to(parameter.device, copy=True)

    def _entries(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        for group in self.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if len(self.indices.get(name, ())) > 0:
                    yield name, parameter, group

    def _clipping_scale(self, gradients: list[torch.Tensor]) -> float:
        norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
        norm = math.hypot(*self._holders.gather(norm))
        if not math.isfinite(norm):
            raise ValueError(
                f"The norm of the selected weights' gradients is {norm}, so the update would destroy the model. "
                "Lower `learning_rate`, or train in float32 or bf16."
            )
        self.last_grad_norm = norm
        return min(1.0, self.max_grad_norm / (norm + 1e-6)) if self.max_grad_norm > 0 else 1.0

    def _update(self, group: dict[str, Any], taken: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]]) -> None:
        """Updates all parameters of a group at once. One by one, most time would pass between the kernels."""
        values = []
        for parameter, chosen, gradient in taken:
            state, (part, _) = self.state[parameter], local_part(parameter)
            if not state:
                state["step"] = torch.zeros((), device=gradient.device)
                state["exp_avg"] = torch.zeros_like(gradient)
                state["exp_avg_sq"] = torch.zeros_like(gradient)
                if parameter.dtype != gradient.dtype:
                    state["master"] = take_entries(part, chosen).to(gradient.dtype)
            values.append(state["master"] if "master" in state else take_entries(part, chosen))
        states = [self.state[parameter] for parameter, *_ in taken]
        beta1, beta2 = group["betas"]
        adamw(
            values,
            [gradient for *_, gradient in taken],
            *([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq")),
            [],
            [state["step"] for state in states],
            fused=all(value.device.type in _FUSED_DEVICES for value in values),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for (parameter, chosen, _), value in zip(taken, values, strict=True):
            part, _ = local_part(parameter)
            part.put_(chosen, value.to(part.dtype))


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
