# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What other thresholds would do."""

from dataclasses import dataclass, replace

from ..evaluation.stages import StageResult


@dataclass(frozen=True)
class GammaTrial:
    """
    What a threshold would do: its weights were reset, evaluated without a repair, and put back.

    Args:
        gamma (`float`): The ratio of forget to retain Fisher above which weights were reset.
        num_selected (`int`): Number of these weights.
        result ([`StageResult`], *optional*): Results after the reset; none if there is no such weight, or if those
            that there are have nothing to be rewound to.
    """

    gamma: float
    num_selected: int
    result: StageResult | None

    def of_request(self, name: str) -> "GammaTrial":
        """The trial with the rows of one request as the forget data."""
        return self if self.result is None else replace(self, result=self.result.of_request(name))
