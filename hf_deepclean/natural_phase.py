# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The natural reset within a run: what it is given, and what is kept of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .config import FisherUnlearningConfig
from .evaluation.evaluator import Evaluator
from .evaluation.stages import StageResult
from .fisher.diagonal import FisherDiagonal
from .request import UnlearningRequest
from .reset.natural import NaturalReset, NaturalResetResult
from .reset.pretrained import shared_parameters
from .runtime.clock import PhaseClock
from .runtime.processes import broadcast_object
from .selection.knowledge import target_of_request
from .selection.weight_selection import WeightSelection


@dataclass(frozen=True)
class FoundValues:
    """
    The new values of the selected weights.

    Args:
        selection ([`WeightSelection`]): The weights.
        values (`dict[str, torch.Tensor]`): Their values, flat.
        result ([`NaturalResetResult`]): How they were found.
    """

    selection: WeightSelection
    values: Mapping[str, torch.Tensor]
    result: NaturalResetResult


@dataclass(frozen=True)
class NaturalPhase:
    """
    Finds the values of a natural reset.

    Args:
        request ([`UnlearningRequest`]):
            The request of the run, with its checkpoint before fine-tuning.
        args ([`FisherUnlearningConfig`]):
            The configuration.
        evaluator ([`Evaluator`]):
            Evaluates the model on samples.
        clock ([`PhaseClock`]):
            Times the phase.
    """

    request: UnlearningRequest
    args: FisherUnlearningConfig
    evaluator: Evaluator
    clock: PhaseClock

    def find(self, selection: WeightSelection, retain: FisherDiagonal | None, target: str) -> FoundValues:
        """
        Finds the new values of the selected weights. All processes get those of the main process.

        Args:
            selection, retain, target:
                As for [`NaturalReset.values`].
        """
        request = self.request
        with self.clock.phase("natural reset"):
            pairs = shared_parameters(request.model, list(selection.num_weights), request.pretrained_model)
            pretrained = {name: before for name, (now, before) in pairs.items() if now.shape == before.shape}
            batch_size = self.args.per_device_fisher_batch_size
            reset = NaturalReset(request.model, self.evaluator, batch_size, self.args.seed)
            found = broadcast_object(reset.values(selection, pretrained, retain, target))
            return FoundValues(selection, *found)

    def find_as_before(self, found: FoundValues | None) -> Callable[[WeightSelection], Mapping[str, torch.Tensor]]:
        """
        Returns what finds the values of a selection: those that were found, and for a control new ones, without a
        Fisher.

        Args:
            found ([`FoundValues`], *optional*):
                What was found. Without it the function raises a `RuntimeError`.
        """

        def find(selection: WeightSelection) -> Mapping[str, torch.Tensor]:
            if found is None:
                raise RuntimeError(
                    "A natural reset follows from the Fishers. Call `select_weights` before it, or for a selection of "
                    "your own use `reset_value='pretrained'`."
                )
            if selection is found.selection:
                return found.values
            return self.find(selection, None, found.result.target).values

        return find


def target_of(args: FisherUnlearningConfig, before: StageResult) -> str:
    """
    What the forget data should be like afterwards: as given, or by their classes.

    Args:
        args ([`FisherUnlearningConfig`]):
            The configuration.
        before ([`StageResult`]):
            The results of the model before the reset.
    """
    return args.target or target_of_request(before.splits["forget"].per_class, before.splits["retain"].per_class)
