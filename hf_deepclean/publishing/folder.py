# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The published folder: files of an allow-list, public report, plots and card, all searched for leaks."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..models.adapters.parameters import ADAPTER_CONFIG_NAME
from ..report.base_card import is_hub_id
from ..report.report import REPORT_NAME, UnlearningReport, load_report
from ..runtime.files import explain_write_errors, incomplete_folder, remove_incomplete, replaced, staged
from ..runtime.interruption import unwinding
from ..runtime.lock import FolderLock
from .card import CARD_NAME, CARD_NAME_BESIDE, UnlearningCard, static_text
from .commitment import COMMITMENT_NAME, ForgetCommitment
from .contents.allow_list import check_entries, published_names
from .contents.configurations import check_no_paths, public_configuration
from .contents.load_check import ModelInMemory, check_loads
from .contents.saved_files import check_saved_weights, warn_of_changed_files
from .leaks import Needles, check_for_leaks, needles_of_machine
from .plots import save_plots
from .public_report import PublicReport
from .staged_files import StagedFiles


@dataclass(frozen=True)
class Publication:
    """
    How a cleaned model is presented.

    Args:
        repo_id (`str`, *optional*):
            The repository, for the title and the usage example of the card.
        base_model (`str`, *optional*):
            Hub id of the original model, or of an adapter's base model. By default the id that it was loaded from;
            none for a local model.
        forget_disclosure (`str`, *optional*):
            What the card tells about the forgotten data, see [`PublicReport.of`]. By default the `forget_disclosure`
            of the run.
        forget_description (`str`, *optional*):
            The owner's description of the forgotten data.
        gated_prompt (`str`, *optional*):
            The question to people who request access to a gated model.
        allowed (`Collection[str]`, *optional*):
            Values that are no leaks although they occur in the forget data.
    """

    repo_id: str | None = None
    base_model: str | None = None
    forget_disclosure: str | None = None
    forget_description: str | None = None
    gated_prompt: str | None = None
    allowed: Collection[str] = ()


@contextmanager
def staged_model(
    folder: str | os.PathLike[str],
    needles: Needles,
    publication: Publication,
    in_memory: ModelInMemory | None = None,
    trust_remote_code: bool = False,
) -> Iterator[StagedFiles]:
    """
    Writes the public form of a run's output directory to a temporary folder inside it, and removes it at the end.

    Every byte of the folder is searched for traces of the forget data and of this machine. Then the folder is loaded,
    see [`check_loads`], and its weights are compared with what the run has saved. Weights are hard links if the file
    system supports them, so whoever sends them must verify them again.

    Args:
        folder (`str`):
            Output directory of a finished run.
        needles ([`Needles`]):
            What must not be published.
        publication ([`Publication`]):
            How the model is presented.
        in_memory ([`ModelInMemory`], *optional*):
            The model that the folder must answer like.
        trust_remote_code (`bool`, *optional*, defaults to `False`):
            Whether code that comes with the model may be run, to load it.

    Yields:
        [`StagedFiles`]: The temporary folder, with the digests of its files from before the checks.

    Raises:
        `FileNotFoundError`: If `folder` holds no finished run, or lacks some of the weights.
        `BlockingIOError`: If a run or another push holds the folder.
        `ValueError`: If files are links, if weights are not safetensors or not those that the run has saved, if the
            folder cannot be loaded or answers differently than the model, if a configuration holds a path, or if the
            disclosure does not fit.
        `LeakError`: If a trace was found. It names files, fields and kinds, never a value.
    """
    folder = Path(folder)
    report = load_report(folder / REPORT_NAME)
    check_entries(folder)
    with unwinding(), FolderLock(folder):
        names = published_names(
            folder,
            is_adapter=report.settings.get("reset_scope") == "adapter",
            processing_class=getattr(in_memory, "processing_class", None),
            trust_remote_code=trust_remote_code,
        )
        remove_incomplete(folder)
        with incomplete_folder(folder) as hidden:
            # Not for its owner alone, as the folder around it is.
            staging = hidden / "published"
            with explain_write_errors(folder):
                staging.mkdir()
                _fill(staging, folder, names, report, publication)
            staged_files = StagedFiles.of(staging, folder)
            # The repository may have the name of the folder.
            of_machine = needles_of_machine(output_dir=folder).without([publication.repo_id or ""])
            check_for_leaks(staging, needles | of_machine, ignore=[static_text(), *publication.allowed])
            check_no_paths(staging, publication.allowed)
            base = _base_of_adapter(folder, publication)
            check_loads(staging, base=base, in_memory=in_memory, trust_remote_code=trust_remote_code)
            check_saved_weights(staging, names, report.saved, folder)
            warn_of_changed_files(folder, names, report.saved)
            yield staged_files


def card_of_run(folder: str | os.PathLike[str], publication: Publication | None = None) -> UnlearningCard:
    """
    Makes the card of a run, without plots.

    Args:
        folder (`str`):
            Output directory of a finished run.
        publication ([`Publication`], *optional*):
            How the model is presented.
    """
    publication = publication or Publication()
    report = load_report(Path(folder) / REPORT_NAME)
    return _card(_public_report(Path(folder), report, publication), report.provenance.card, publication, [])


def write_card(folder: str | os.PathLike[str], publication: Publication) -> None:
    """
    Writes the card of a run to its output directory.

    Args:
        folder, publication:
            As for [`card_of_run`].

    Raises:
        `FileExistsError`: If the directory holds a README that somebody has written.
    """
    path = Path(folder) / CARD_NAME
    card = card_of_run(folder, publication)
    if _is_hand_written(path):
        raise FileExistsError(
            f"{path} was written by hand. Nothing is ever overwritten: move it, or keep it as it is."
        )
    with replaced(path) as written:
        card.save(written)


def save_published(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    needles: Needles,
    publication: Publication | None = None,
    in_memory: ModelInMemory | None = None,
    trust_remote_code: bool = False,
) -> list[str]:
    """
    Writes the public form of a run's output directory to a new folder. If that fails, there is no folder.

    Args:
        folder, needles, publication, in_memory, trust_remote_code:
            As for [`staged_model`].
        target (`str`):
            The new folder.

    Returns:
        `list[str]`: The files, relative to `target`.

    Raises:
        `FileExistsError`: If `target` exists and is not empty.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is not empty. Nothing is ever overwritten: choose another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = staged_model(folder, needles, publication or Publication(), in_memory, trust_remote_code)
    with staging as content, staged(target.parent) as beside:
        # Copies, not links to files of the output directory.
        content.copy_to(beside / target.name)
        with suppress(FileNotFoundError):
            target.rmdir()
        os.replace(beside / target.name, target)
    return relative_files(target)


def relative_files(folder: Path) -> list[str]:
    """All files below a folder, relative to it, in alphabetical order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _fill(staging: Path, folder: Path, names: list[str], report: UnlearningReport, publication: Publication) -> None:
    public, plots = _public_report(folder, report, publication), []
    for name in names:
        _copy(folder / name, staging / name, public.base_model)
    public.save(staging / REPORT_NAME)
    if find_spec("matplotlib") is not None:
        plots = [path.name for path in save_plots(public, staging / "plots")]
    _save_card(folder, staging, _card(public, report.provenance.card, publication, plots))


def _copy(source: Path, target: Path, base_model: str | None) -> None:
    target.parent.mkdir(exist_ok=True)
    public = public_configuration(source, base_model)
    if public is not None:
        target.write_text(public, encoding="utf-8")
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _base_of_adapter(folder: Path, publication: Publication) -> str | None:
    """Where an adapter's base can be loaded from, for the check that the adapter loads."""
    path = folder / ADAPTER_CONFIG_NAME
    return (json.loads(path.read_text()).get("base_model_name_or_path") if path.exists() else None) or (
        publication.base_model
    )


def _public_report(folder: Path, report: UnlearningReport, publication: Publication) -> PublicReport:
    """The public report, with the commitment from the output directory."""
    commitment = None
    if (folder / COMMITMENT_NAME).exists():
        commitment = ForgetCommitment.load(folder / COMMITMENT_NAME).commitment
    if publication.base_model is not None:
        if not is_hub_id(publication.base_model):
            raise ValueError(
                f"`base_model` is {publication.base_model!r}, which is no id of the Hub, and paths are not published. "
                "Pass 'owner/name', or leave it out."
            )
        report = replace(report, provenance=report.provenance.named(publication.base_model))
    disclosure, description = publication.forget_disclosure, publication.forget_description
    return PublicReport.of(report, disclosure, description, commitment=commitment)


def _card(
    report: PublicReport, base_card: dict[str, Any], publication: Publication, plots: list[str]
) -> UnlearningCard:
    return UnlearningCard.from_report(
        report,
        repo_id=publication.repo_id,
        base_metadata=base_card,
        plots=plots,
        gated_prompt=publication.gated_prompt,
    )


def _save_card(folder: Path, staging: Path, card: UnlearningCard) -> None:
    """Saves the card. A README that the owner has written is published unchanged, with the card beside it."""
    name = CARD_NAME
    if _is_hand_written(folder / CARD_NAME):
        shutil.copyfile(folder / CARD_NAME, staging / CARD_NAME)
        name = CARD_NAME_BESIDE
    card.save(staging / name)


def _is_hand_written(path: Path) -> bool:
    # A damaged letter is no letter of a generated card.
    return path.exists() and not UnlearningCard.is_generated(path.read_text(encoding="utf-8", errors="replace"))
