# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
from PIL import Image

from hf_deepclean import PublicReport, save_plots
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.publishing.public_records import PublicRelearning, PublicTrial
from tests.publishing.reports import report, split, text_split, with_sample


def full(make=split):
    return replace(
        PublicReport.of(report(make=make), "size"),
        trial_measure="accuracy",
        trials=(PublicTrial(0.5, 0.4, {"forget": 0.2, "retain": 0.9}), PublicTrial(9.0, 0.0, {})),
        relearning=PublicRelearning(
            "accuracy", 1e-3, (0, 1, 2, 4), {"after_repair": (0.1, 0.3, 0.5, 0.9), "reference": (0.1, 0.2, 0.3, 0.4)}
        ),
    )


@pytest.mark.parametrize("make", [split, text_split])
def test_draws_what_was_measured_and_overwrites_nothing(tmp_path, make):
    paths = save_plots(full(make), tmp_path / "plots")
    assert [path.name for path in paths] == [
        "results.png",
        "loss.png",
        "reset_share.png",
        "fisher_plane.png",
        "gamma.png",
        "relearning.png",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 100
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
            # The file tells nothing about the machine or its software.
            assert set(image.info) <= {"dpi"}
    with pytest.raises(FileExistsError, match=r"already holds results.png"):
        save_plots(full(make), tmp_path / "plots")


def test_leaves_out_what_was_not_measured(tmp_path):
    losses_alone = replace(split(400), accuracy=None, accuracy_interval=None, loss_deciles=(0.1,) * 9)
    stages = {"before": with_sample(StageResult({"forget": losses_alone, "retain": losses_alone}))}
    bare = replace(report(stages=stages | {"after_repair": stages["before"]}))
    bare = replace(bare, selection=replace(bare.selection, plane=None))
    assert [path.name for path in save_plots(bare, tmp_path / "bare")] == ["loss.png"]
    told = PublicReport.of(bare, "size")
    assert [path.name for path in save_plots(told, tmp_path / "told")] == ["loss.png", "reset_share.png"]
    few = replace(report(12), selection=bare.selection)
    few = [path.name for path in save_plots(few, tmp_path / "few")]
    assert "relearning.png" not in few


def test_withheld_pictures_show_nothing_of_the_selection_and_are_the_same_for_every_size(tmp_path):
    sizes = {"few": (60, 1940), "many": (430, 1570)}
    drawn = {
        name: save_plots(PublicReport.of(report(*size), "withheld"), tmp_path / name) for name, size in sizes.items()
    }
    assert [path.name for path in drawn["few"]] == ["results.png", "loss.png"]
    for few, many in zip(drawn["few"], drawn["many"], strict=True):
        assert few.read_bytes() == many.read_bytes()


def test_relearning_has_a_panel_for_every_kind_of_data(tmp_path):
    # Leaves out most other plots, which take time.
    one, widths = replace(full(), plane=None, measures=(), loss_quantiles={}), []
    three = replace(one, further_relearning={"retain": one.relearning, "few_forget": one.relearning})
    for name, record in (("one", one), ("three", three), ("others", replace(three, relearning=None))):
        save_plots(record, tmp_path / name)
        with Image.open(tmp_path / name / "relearning.png") as image:
            widths.append(image.size[0])
    assert widths == [widths[0], 3 * widths[0], 2 * widths[0]]


def test_a_private_report_is_drawn_as_others_may_see_it(tmp_path):
    private, public = report(60), PublicReport.of(report(60), "withheld")
    for name, record in (("private", private), ("public", public)):
        save_plots(record, tmp_path / name)
    for path in (tmp_path / "private").iterdir():
        assert path.read_bytes() == (tmp_path / "public" / path.name).read_bytes()
