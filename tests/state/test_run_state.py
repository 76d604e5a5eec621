# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hf_deepclean import FisherUnlearningConfig, WeightSelection
from hf_deepclean.evaluation.results import SplitResult
from hf_deepclean.evaluation.stages import StageResult
from hf_deepclean.request import UnlearningRequest
from hf_deepclean.runtime.interruption import Interruption
from hf_deepclean.state.directory import check_output_directory, num_bytes_to_write
from hf_deepclean.state.identity import identity_of_run
from hf_deepclean.state.run_state import RunState
from tests import tiny


def test_an_output_directory_that_holds_anything_is_refused(tmp_path):
    check_output_directory(tmp_path / "new", resuming=False)
    check_output_directory(tmp_path, resuming=False)
    (tmp_path / "checkpoint-10").mkdir()
    check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="already holds checkpoint-10"):
        check_output_directory(tmp_path, resuming=False)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors\. Nothing is ever overwritten"):
        check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="is a file"):
        check_output_directory(tmp_path / "model.safetensors", resuming=True)


@pytest.fixture
def model():
    return tiny.randomized(tiny.vit(num_labels=10), torch.float32)


def request_for(folder, model, **kwargs):
    digits = tiny.digits()
    data = {"forget": digits.select(range(8)), "retain": digits.select(range(8, 24))}
    args = FisherUnlearningConfig(str(folder), **({"gamma": 1.0, "use_cpu": True, "report_to": "none"} | kwargs))
    return UnlearningRequest.of(model, args, data), args


def state_in(folder, identity=None, num_bytes=0):
    """The state of a run that was started with this identity."""
    state = RunState(str(folder), 60.0, Interruption())
    state.open({"settings": {"gamma": 1.0}} if identity is None else identity, num_bytes)
    return state


def result(accuracy):
    return StageResult({"forget": SplitResult(8, 1.0, (1.0,) * 9, accuracy, (0.0, 1.0))})


def test_a_stage_is_evaluated_once_also_by_the_run_that_continues(tmp_path):
    state = state_in(tmp_path / "a")
    assert state.evaluate_stage("before", lambda: result(0.5)) == result(0.5)
    for again in (state, state_in(tmp_path / "a")):
        assert again.evaluate_stage("before", lambda: pytest.fail("evaluated")) == result(0.5)


def test_the_digests_of_a_later_version_are_refused_as_that(tmp_path):
    state_in(tmp_path / "a", {"format of digests": 2})
    assert RunState(str(tmp_path / "a"), 60.0, Interruption()).digests_format() == 2
    state = state_in(tmp_path / "b", {"format of digests": 3})
    with pytest.raises(ValueError, match="a later version of hf_deepclean"):
        state.digests_format()


def test_a_selection_is_read_as_it_was_saved_and_the_fisher_sums_go(tmp_path):
    state = state_in(tmp_path / "a")
    assert state.load_selection() is None
    sums = state.folder / "forget-fisher-00000-of-00001.safetensors"
    sums.touch()
    selection = WeightSelection({"w": torch.tensor([1, 4])}, {"w": 9, "b": 3}, "gamma", 2.5, 1)
    state.save_selection(selection)
    found = state_in(tmp_path / "a").load_selection()
    assert found.indices["w"].tolist() == [1, 4] and replace(found, indices={}) == replace(selection, indices={})
    assert not sums.exists()


def test_repaired_weights_are_read_to_the_bit(tmp_path):
    state, values = state_in(tmp_path / "a"), {"w": torch.randn(5), "b": torch.randn(2).bfloat16()}
    assert state.load_repaired() == (None, 0)
    state.save_repaired(values, 2)
    found, number = state_in(tmp_path / "a").load_repaired()
    assert number == 2
    assert all(torch.equal(value, found[name]) for name, value in values.items())


def test_the_state_of_another_run_is_refused_by_what_differs(tmp_path):
    state_in(tmp_path / "a", {"settings": {"gamma": 1.0, "seed": 0}, "model": "x", "num_processes": 2})
    other = {"settings": {"gamma": 2.0, "seed": 0}, "model": "y", "num_processes": 1}
    with pytest.raises(ValueError, match="another model; num_processes 2, now 1; settings: gamma 1.0, now 2.0. Cont"):
        state_in(tmp_path / "a", other)


def test_a_record_that_cannot_be_read_is_refused_with_what_to_do(tmp_path):
    record = state_in(tmp_path / "a").folder / "progress.json"
    record.write_text('{"identity": {}, "colour": "red"}')
    with pytest.raises(ValueError, match="not the record of a run that this version .* remove the folder and start a"):
        state_in(tmp_path / "a")


def test_too_little_room_is_refused_and_leaves_no_folder(tmp_path):
    with pytest.raises(OSError, match="The run writes up to .* GiB free. Choose another `output_dir`"):
        state_in(tmp_path / "a", num_bytes=2**80)
    assert not (tmp_path / "a").exists()


def test_a_result_appears_file_by_file_in_order_and_nothing_else_stays(tmp_path, monkeypatch):
    state, seen, rename = state_in(tmp_path / "a"), [], os.replace

    def replace(source, target):
        rename(source, target)
        seen.append(Path(target).name)

    def write(folder):
        for name in ("report.json", "weights", "config.json", "tokenizer"):
            (folder / name).write_text(name)

    with monkeypatch.context() as patch:
        patch.setattr("hf_deepclean.state.run_state.os.replace", replace)
        state.put_in_place(write, ("config.json", "report.json"))
    names = ["tokenizer", "weights", "config.json", "report.json"]
    assert [name for name in seen if name in names] == names == state.progress.result_files
    state.remove()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)


def test_the_last_checkpoint_is_found_in_the_output_and_in_the_state(tmp_path):
    state = state_in(tmp_path / "a")
    assert state.last_checkpoint() is None
    for folder in (state.output / "checkpoint-9", state.folder / "checkpoint-10"):
        folder.mkdir()
    assert state.last_checkpoint() == str(state.folder / "checkpoint-10")


def test_the_state_of_a_run_that_did_nothing_is_removed_and_no_other(tmp_path):
    state = state_in(tmp_path / "a")
    state.remove_if_empty()
    assert not (tmp_path / "a").exists()
    state = state_in(tmp_path / "a")
    state.evaluate_stage("before", lambda: result(0.5))
    state.remove_if_empty()
    assert state.folder.exists()


@pytest.mark.parametrize(
    ("options", "is_same"),
    [
        ({}, True),
        ({"save_strategy": "epoch", "logging_steps": 3, "disable_tqdm": True, "forget_disclosure": "size"}, True),
        ({"gamma": 2.0}, False),
        ({"seed": 1}, False),
        ({"learning_rate": 1.0}, False),
    ],
)
def test_a_run_is_the_same_if_all_that_decides_its_bits_is(tmp_path, model, options, is_same):
    before = identity_of_run(*request_for(tmp_path, model))
    assert (identity_of_run(*request_for(tmp_path, model, **options)) == before) == is_same


def test_a_run_on_other_weights_or_other_rows_is_another_run(tmp_path, model):
    request, args = request_for(tmp_path, model)
    before = identity_of_run(request, args)
    rows = dict(request.splits, forget=tiny.digits().select(range(1, 9)))
    assert identity_of_run(replace(request, splits=rows), args)["forget_dataset"] != before["forget_dataset"]
    with torch.no_grad():
        model.classifier.bias[0] += 1
    assert identity_of_run(request, args)["model"] != before["model"]


def test_a_run_writes_the_model_and_two_sums_of_the_weights_in_scope(tmp_path, model):
    request, args = request_for(tmp_path, model)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    assert num_bytes_to_write(request, args) == 3 * 4 * num_weights
    narrow = request_for(tmp_path, model, target_modules=["classifier"])
    assert num_bytes_to_write(*narrow) == 4 * num_weights + 2 * 4 * (16 * 10 + 10)
