# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import TrainerState

from hf_deepclean.repair.checkpoints import RepairCheckpoints, load_checkpoint
from hf_deepclean.repair.hard_examples import HardExampleSampler
from hf_deepclean.reset.weights import read_weights, write_weights
from hf_deepclean.runtime.files import STATE_FOLDER
from tests.repair.repairs import reset_some, resnet


@pytest.fixture
def reset():
    return reset_some(resnet())


def finish(checkpoints, step, reset, row_order=None, best=None):
    """Finishes a checkpoint to which Trainer has written one file."""
    folder = checkpoints.staging / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    state = TrainerState(global_step=step, best_model_checkpoint=best)
    checkpoints.finish(state, reset, row_order)
    return state


def test_a_checkpoint_gives_the_selected_weights_back(tmp_path, reset):
    values = {name: torch.randn_like(value) for name, value in read_weights(reset.model, reset.selection).items()}
    write_weights(reset.model, reset.selection, values)
    finish(RepairCheckpoints(tmp_path), 3, reset)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    reset.undo()
    load_checkpoint(tmp_path / "checkpoint-3", reset, None)
    after = read_weights(reset.model, reset.selection)
    assert all(torch.equal(value, after[name]) for name, value in values.items())


def test_a_checkpoint_gives_the_order_of_the_rows_back(tmp_path, reset):
    order, other = HardExampleSampler(6, 0.5), HardExampleSampler(6, 0.5)
    order.record([0, 3], [2.0, 1.0])
    finish(RepairCheckpoints(tmp_path), 3, reset, order)
    load_checkpoint(tmp_path / "checkpoint-3", reset, other)
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in order.state().items())


def test_a_checkpoint_that_nobody_asked_for_is_part_of_the_state(tmp_path, reset):
    finish(RepairCheckpoints(tmp_path, are_asked_for=False), 3, reset)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FOLDER]
    assert [path.name for path in (tmp_path / STATE_FOLDER).iterdir()] == ["checkpoint-3"]


def test_old_checkpoints_go_and_the_best_one_stays(tmp_path, reset):
    checkpoints = RepairCheckpoints(tmp_path, max_kept=1)
    best = finish(checkpoints, 1, reset, best=str(checkpoints.staging / "checkpoint-1")).best_model_checkpoint
    assert best == str(tmp_path / "checkpoint-1")
    for step in (2, 3):
        finish(checkpoints, step, reset, best=best)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-3"]


def test_a_folder_without_selected_weights_is_no_checkpoint(tmp_path, reset):
    with pytest.raises(ValueError, match="is not a checkpoint of a repair: it has no selected_weights"):
        load_checkpoint(tmp_path, reset, None)
