# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that are counts."""

from dataclasses import dataclass

from ..models.adapters.parameters import is_adapted, num_base_weights
from ..models.scope import describe_frozen_weights
from ..reset.resetter import Reset
from ..selection.fisher_plane import FisherPlane
from ..selection.weight_selection import WeightSelection


@dataclass(frozen=True)
class SelectionResult:
    """
    Which weights were reset, as counts.

    Args:
        rule (`str`): `"auto"`, `"gamma"`, `"reset_fraction"` or `"adaptive"`.
        gamma (`float`, *optional*): The ratio of forget to retain Fisher above which weights were selected.
        num_in_scope (`int`): Weights that could be selected.
        num_selected (`int`): Weights that were selected.
        num_infinite_ratios (`int`): Selected weights with a retain Fisher of exactly 0.
        per_module (`dict[str, tuple[int, int]]`): Selected weights and weights in scope of every module.
        plane ([`FisherPlane`], *optional*): Where the weights lie in the plane of the two Fishers.
        frozen_share (`float`): Share of all weights that are out of scope because they require no gradient; see
            [`frozen_share`].
    """

    rule: str
    gamma: float | None
    num_in_scope: int
    num_selected: int
    num_infinite_ratios: int
    per_module: dict[str, tuple[int, int]]
    plane: FisherPlane | None = None
    frozen_share: float = 0.0

    @classmethod
    def of(
        cls, selection: WeightSelection, plane: FisherPlane | None = None, frozen_share: float = 0.0
    ) -> "SelectionResult":
        """Counts a selection."""
        return cls(
            selection.rule,
            selection.gamma,
            selection.num_in_scope,
            selection.num_selected,
            selection.num_infinite_ratios,
            selection.counts_per_module(),
            plane,
            frozen_share,
        )

    def frozen_notes(self) -> list[str]:
        """A sentence about frozen weights, if there are any."""
        return [describe_frozen_weights(self.frozen_share)] if self.frozen_share else []

    def rows(self) -> list[list[str]]:
        """The rows of a console table: every module with selected weights, then the total."""
        rows = [["module", "selected", "in scope", "share"]]
        modules = [(module, counts) for module, counts in self.per_module.items() if counts[0]]
        for module, (selected, total) in [*modules, ("all", (self.num_selected, self.num_in_scope))]:
            rows.append([module, f"{selected:,}", f"{total:,}", f"{100 * selected / total:.2f} %"])
        return rows


@dataclass(frozen=True)
class IntegrityResult:
    """
    What the freeze guard found when it compared the weights with those before unlearning.

    Args:
        num_selected_changed (`int`): Selected weights that have another value than before.
        num_frozen_weights (`int`): Weights outside the selection; none of them changed in any bit.
        num_buffer_entries (`int`): Entries of buffers; none of them changed in any bit.
        frozen_checksum (`str`): SHA-256 over the frozen weights and the buffers.
        num_base_weights (`int`, *optional*): In adapter scope, the number of frozen weights that belong to the base
            model, counted as they are stored.
    """

    num_selected_changed: int
    num_frozen_weights: int
    num_buffer_entries: int
    frozen_checksum: str
    num_base_weights: int | None = None

    @classmethod
    def of(cls, reset: Reset) -> "IntegrityResult":
        """
        Counts the weights after a repair.

        Args:
            reset ([`Reset`]):
                The repaired reset. Its guard has verified the model.
        """
        return cls(
            reset.num_changed(),
            reset.guard.num_frozen_weights,
            reset.guard.num_buffer_entries,
            reset.guard.checksum,
            num_base_weights(reset.model) if is_adapted(reset.model) else None,
        )
