# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The record of a run that is under way, as JSON."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.recovery import RelearningResult
from ..evaluation.stages import StageResult
from ..report.json_record import from_json_types, to_json_types
from ..reset.natural import NaturalResetResult
from ..runtime.files import replaced
from ..runtime.sealed_files import digest_of_json, sealed, unsealed
from ..selection.fisher_plane import FisherPlane
from ..selection.search import SelectionSearch
from ..selection.subtraction import KeptFisherResult
from ..selection.sweep import GammaTrial


PROGRESS_NAME = "progress.json"


@dataclass
class RunProgress:
    """
    The record of a run that is under way.

    Args:
        identity (`dict[str, Any]`): What the run was started with; see [`identity_of_run`].
        stages (`dict[str, StageResult]`): Results of the stages that are done.
        seconds (`dict[str, float]`): Wall-clock seconds per phase.
        num_fisher_examples (`dict[str, int]`): Number of examples in each Fisher, once there is a selection.
        fisher_fallback (`dict[str, str]`): Parameters whose Fisher was computed one example at a time, with the
            reason.
        kept_fisher ([`KeptFisherResult`], *optional*): How a kept Fisher was used, if there was one.
        result_files (`list[str]`): Names of the files of the result, once they are being put in place.
        plane ([`FisherPlane`], *optional*): The histogram of the weights by both Fishers, once there is a selection.
        gamma_trials (`tuple[GammaTrial, ...]`): Trials of the gamma sweep that are done.
        relearning (`dict[str, RelearningResult]`): Results of the relearning that are done, by the data trained on.
        search ([`SelectionSearch`], *optional*): The record of the trials, if the rule is `"auto"`.
        files (`list[str]`): Names of the files that must be beside the record.
        natural ([`NaturalResetResult`], *optional*): What a natural reset found, once there is a selection.
        retained_by_round (`tuple[float, ...]`): What the model knew of the retain data after each round of the repair.
    """

    identity: dict[str, Any]
    stages: dict[str, StageResult] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    num_fisher_examples: dict[str, int] = field(default_factory=dict)
    fisher_fallback: dict[str, str] = field(default_factory=dict)
    kept_fisher: KeptFisherResult | None = None
    result_files: list[str] = field(default_factory=list)
    plane: FisherPlane | None = None
    gamma_trials: tuple[GammaTrial, ...] = ()
    relearning: dict[str, RelearningResult] = field(default_factory=dict)
    search: SelectionSearch | None = None
    retained_by_round: tuple[float, ...] = ()
    natural: NaturalResetResult | None = None
    files: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        """A digest of the identity, which the files of the run hold too."""
        return digest_of_json(self.identity)


def load_progress(path: Path) -> RunProgress:
    """
    Loads and verifies the record of a run.

    Args:
        path (`Path`):
            The file.

    Raises:
        `ValueError`: If it is damaged, or not the record of a run.
    """
    try:
        return from_json_types(RunProgress, unsealed(json.loads(path.read_bytes())))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path} is not the record of a run that this version of hf_deepclean can continue ({error}). Choose "
            "another `output_dir`, or remove the folder and start again."
        ) from error


def save_progress(path: Path, progress: RunProgress) -> None:
    """
    Saves the record of a run, with its digest.

    Args:
        path (`Path`):
            The file, which is replaced as a whole.
        progress ([`RunProgress`]):
            The record.
    """
    with replaced(path) as written:
        written.write_text(json.dumps(sealed(to_json_types(progress)), indent=2))
