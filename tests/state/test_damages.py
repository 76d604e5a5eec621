# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Damage to the files of a run is refused by name, or the run ends in the same bits."""

import json
import random
import shutil
from collections import Counter

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hf_deepclean import FisherDiagonal, UnlearningReport
from hf_deepclean.data.contents.earlier import earlier_fingerprint
from tests.state.damages import (
    KINDS,
    PHASES,
    READERS,
    content_of_fisher,
    damage,
    files_in,
    resumed,
    stop_in,
    unlearner_for,
    weights_and_figures,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(folder):
    """The output directory of a run that nothing stops."""
    unlearner_for(folder / "finished").unlearn()
    return folder / "finished"


@pytest.fixture(scope="module")
def stopped(folder):
    """Returns the output directory of a run that was stopped in a phase; every phase is run once."""

    def stopped_in(phase, seed=0):
        path = folder / f"{phase} {seed}"
        if not path.exists():
            stop_in(path, phase, seed=seed)
        return path

    return stopped_in


STATE = "_unlearning_state"


@pytest.mark.parametrize(
    ("phase", "name", "kind", "message"),
    [
        ("retain Fisher", f"{STATE}/retain-fisher-00000-of-00001.safetensors", "flip", "is damaged"),
        ("retain Fisher", f"{STATE}/forget-fisher-00000-of-00001.safetensors", "swap", "belongs to another run"),
        ("repair", f"{STATE}/selection.safetensors", "swap", "belongs to another run"),
        ("repair", f"{STATE}/selection.safetensors", "delete", r"selection\.safetensors is missing"),
        ("repair", f"{STATE}/progress.json", "flip", "is not the record of a run"),
        ("repair", f"{STATE}/progress.json", "delete", r"progress\.json is missing"),
        ("repair", "checkpoint-2/optimizer.pt", "swap", r"optimizer\.pt is damaged, or is a file of another folder"),
        ("repair", "checkpoint-2/scheduler.pt", "delete", r"scheduler\.pt is missing"),
        ("repair", "checkpoint-2/digests.json", "delete", r"digests\.json is missing"),
        ("repair", "checkpoint-2/selected_weights.safetensors", "cut", "is damaged"),
        ("control", f"{STATE}/repaired.safetensors", "flip", "is damaged"),
    ],
)
def test_a_damaged_file_of_a_run_is_refused_by_name_before_the_model_changes(
    tmp_path, stopped, phase, name, kind, message
):
    copied = shutil.copytree(stopped(phase), tmp_path / "clean")
    other = shutil.copytree(stopped(phase, seed=1), tmp_path / "other") / name if kind == "swap" else None
    damage(copied / name, kind, random.Random(3), other)
    unlearner = unlearner_for(copied)
    before = {name: value.clone() for name, value in unlearner.model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as refusal:
        unlearner.unlearn(resume_from_checkpoint=True)
    assert "remove" in str(refusal.value)
    assert all(torch.equal(value, before[name]) for name, value in unlearner.model.state_dict().items())


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path, stopped):
    copied = shutil.copytree(stopped("repair"), tmp_path / "clean")
    (copied / "checkpoint-2").rename(copied / "checkpoint-4")
    with pytest.raises(ValueError, match="is the checkpoint of step 2 under another name"):
        resumed(copied)


def test_a_state_and_its_checkpoints_that_no_digest_was_written_for_are_used_with_a_warning(
    tmp_path, stopped, finished, caplog
):
    """As versions before the digests wrote them, which also took others of the rows."""
    copied = shutil.copytree(stopped("repair"), tmp_path / "clean")
    record = json.loads((copied / STATE / "progress.json").read_text())
    del record["digest"], record["files"], record["identity"]["format of digests"]
    splits = unlearner_for(copied).request.splits.items()
    record["identity"] |= {f"{split}_dataset": earlier_fingerprint(dataset) for split, dataset in splits}
    (copied / STATE / "progress.json").write_text(json.dumps(record))
    (copied / "checkpoint-2" / "digests.json").unlink()
    for path in copied.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = {k: v for k, v in file.metadata().items() if k not in ("digest", "format", "owner")}
        save_file(tensors, path, metadata)
    other = unlearner_for(copied)
    other.forget_dataset = other.forget_dataset.select([1, 0, *range(2, len(other.forget_dataset))])
    with pytest.raises(ValueError, match="state of another run: another forget_dataset. "):
        other.unlearn(resume_from_checkpoint=True)
    caplog.clear()
    assert resumed(copied) == weights_and_figures(finished)
    warned = [message for message in caplog.messages if "without a digest" in message]
    assert [len([m for m in warned if name in m]) for name in ("progress", "selection", "selected_weights")] == [1] * 3


def test_a_damaged_report_or_commitment_is_refused(tmp_path, finished):
    for name, read in READERS.items():
        for kind in ("flip", "cut"):
            shutil.copy(finished / name, tmp_path / name)
            damage(tmp_path / name, kind, random.Random(5), None)
            with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                read(tmp_path / name)
    text = (finished / "report.json").read_text()
    figure = repr(UnlearningReport.load(finished / "report.json").stages["before"].splits["forget"].mean_loss)
    assert figure in text
    (tmp_path / "report.json").write_text(text.replace(figure, "0.125"))
    with pytest.raises(ValueError, match="does not have the digest that it was written with"):
        UnlearningReport.load(tmp_path / "report.json")


def test_a_kept_fisher_with_a_file_of_another_one_is_refused(tmp_path):
    for name, value in (("own", 1.0), ("other", 2.0)):
        sums = {"v": torch.full((8,), value), "w": torch.full((8,), value)}
        FisherDiagonal(sums, 3, weights_fingerprint="a" * 64).save_pretrained(tmp_path / name, max_shard_size=32)
    name = "fisher-00002-of-00002.safetensors"
    shutil.copy(tmp_path / "other" / name, tmp_path / "own" / name)
    with pytest.raises(ValueError, match=f"{name} is a file of another Fisher diagonal"):
        FisherDiagonal.from_pretrained(tmp_path / "own")


@pytest.mark.slow
def test_of_two_hundred_random_damages_none_is_silent(tmp_path, stopped, finished, record_property):
    """Prints how many were refused, and how many ended in the same bits."""
    draw, expected, counts, silent = random.Random(0), weights_and_figures(finished), Counter(), []
    fishers = {}
    for seed in (0, 1):
        unlearner = unlearner_for(tmp_path / f"fisher {seed}", seed=seed)
        fishers[seed] = tmp_path / f"kept {seed}"
        kept = unlearner.compute_fisher(unlearner.retain_dataset)
        kept.save_pretrained(fishers[seed], unlearner.model, max_shard_size=8000)
    for number in range(200):
        place = draw.choice([*PHASES, *PHASES, *PHASES, "fisher", "result"])
        kind = draw.choice(KINDS)
        sources = {
            seed: fishers[seed]
            if place == "fisher"
            else (finished if seed == 0 else stopped("repair", 1))
            if place == "result"
            else stopped(place, seed)
            for seed in (0, 1)
        }
        copied = shutil.copytree(sources[0], tmp_path / str(number))
        other = shutil.copytree(sources[1], tmp_path / f"other {number}")
        names = [path.relative_to(copied) for path in files_in(copied)]
        if place == "result":
            names = [name for name in names if str(name) in READERS]
            kind = draw.choice(("flip", "cut", "delete"))
        name = draw.choice(names)
        if kind == "swap" and not (other / name).exists():
            kind = "delete"
        what = f"{place}: {damage(copied / name, kind, draw, other / name)}"
        try:
            if place == "fisher":
                is_same = content_of_fisher(copied) == content_of_fisher(fishers[0])
            elif place == "result":
                is_same = READERS[str(name)](copied / name) == READERS[str(name)](finished / name)
            else:
                is_same = resumed(copied) == expected
            counts["same bits" if is_same else "silent"] += 1
            silent += [] if is_same else [what]
        except (ValueError, FileNotFoundError, FileExistsError) as error:
            assert name.name in str(error) or STATE in str(error), f"{what}: {error}"
            counts["refused"] += 1
        shutil.rmtree(copied)
        shutil.rmtree(other, ignore_errors=True)
    print(dict(counts))  # noqa: T201
    record_property("counts", dict(counts))
    assert not silent
    assert counts["refused"] > 100
