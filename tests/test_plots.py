# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
from PIL import Image

from hf_deepclean import save_plots

from .test_report import report, text_report


def test_writes_pictures_with_content_and_overwrites_none(tmp_path):
    paths = save_plots(report(), tmp_path / "plots")
    assert [path.name for path in paths] == ["reset_share.png", "accuracy.png", "loss.png"]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 100
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    with pytest.raises(FileExistsError, match="already holds reset_share.png"):
        save_plots(report(), tmp_path / "plots")


def test_draws_the_accuracy_of_tokens_and_leaves_the_picture_out_where_there_is_none(tmp_path):
    paths = save_plots(text_report(), tmp_path / "text")
    assert [path.name for path in paths] == ["reset_share.png", "accuracy.png", "loss.png"]
    plain = text_report()
    stages = {
        name: replace(stage, splits={split: replace(r, tokens=None) for split, r in stage.splits.items()})
        for name, stage in plain.stages.items()
    }
    paths = save_plots(replace(plain, stages=stages), tmp_path / "plain")
    assert [path.name for path in paths] == ["reset_share.png", "loss.png"]
