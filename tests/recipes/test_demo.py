# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from transformers import ViTForImageClassification

from hf_deepclean import UnlearningReport
from tests.card_checks import assert_is_a_valid_card

from .running import commands_of


def test_the_launch_commands_of_the_demo_parse(demo):
    commands = commands_of(demo)
    assert len(commands) == 2
    assert demo.make_parser().parse_args(commands[1]).seeds == [0, 1, 2]


def test_requests_split_the_training_data_and_nothing_else(demo):
    data = demo.load_data(0)
    assert [len(part) for part in data.values()] == [1200, 300, 297]
    for request in demo.REQUESTS:
        splits = demo.split_request(data, request)
        assert len(splits["forget_dataset"]) + len(splits["retain_dataset"]) == 1200
    assert set(splits["forget_dataset"]["labels"][:].tolist()) == {demo.FORGOTTEN_CLASS}
    assert demo.FORGOTTEN_CLASS not in splits["retain_dataset"]["labels"][:].tolist()
    assert set(splits["unseen_dataset"]["labels"][:].tolist()) == {demo.FORGOTTEN_CLASS}


def test_never_writes_into_an_earlier_run(demo, tmp_path):
    assert demo.new_directory(tmp_path).name == "digits-1"
    (tmp_path / "digits-1").mkdir()
    assert demo.new_directory(tmp_path).name == "digits-2"


@pytest.mark.slow
def test_the_demo_meets_its_targets(demo, tmp_path, capsys):
    demo.main(demo.make_parser().parse_args(["--output_dir", str(tmp_path)]))
    text = capsys.readouterr().out
    folder = tmp_path / "digits-1" / "seed-0"
    by_class = UnlearningReport.load(folder / "class" / "report.json")
    assert by_class.stages["after_repair"].splits["forget"].accuracy <= 0.01
    assert abs(by_class.gaps_to_reference("after_repair")["eval other classes accuracy"]) <= 0.02
    at_random = UnlearningReport.load(folder / "random" / "report.json").gaps_to_reference("after_repair")
    assert abs(at_random["forget accuracy"]) <= 0.03
    assert abs(at_random["membership AUC"]) <= 0.03
    assert "| forget accuracy |" in text
    for request in demo.REQUESTS:
        ViTForImageClassification.from_pretrained(folder / request)
        public = folder / f"{request}-public"
        assert len(list((public / "plots").iterdir())) == 5
        assert_is_a_valid_card((public / "README.md").read_text())
