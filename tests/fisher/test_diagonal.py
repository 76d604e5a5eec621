# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import save_file

from hf_deepclean import FisherDiagonal, accumulate_fisher_diagonal

from .. import tiny


def test_disjoint_sets_add_up():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    first, second = tiny.in_batches(batch, 6)
    total = accumulate_fisher_diagonal(model, [first]) + accumulate_fisher_diagonal(model, [second])
    whole = accumulate_fisher_diagonal(model, [batch])
    assert total.num_examples == whole.num_examples == 11
    for name, mean in whole.mean().items():
        assert torch.allclose(total.mean()[name], mean, rtol=1e-10, atol=1e-25)


def test_mean_divides_by_the_number_of_examples():
    assert FisherDiagonal({"w": torch.tensor([6.0])}, 3).mean()["w"].item() == 2


@pytest.mark.parametrize(
    "other", [FisherDiagonal({"v": torch.ones(1)}, 1), FisherDiagonal({"w": torch.ones(1)}, 1, "sampled")]
)
def test_other_parameters_or_another_estimator_do_not_add_up(other):
    with pytest.raises(ValueError, match="same parameters and with the same"):
        FisherDiagonal({"w": torch.ones(1)}, 1) + other


def test_a_saved_diagonal_is_loaded_with_every_bit_and_adds_up(tmp_path):
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    fisher = accumulate_fisher_diagonal(model, [batch], fisher_type="sampled", seed=3)
    fisher = FisherDiagonal(fisher.sums, fisher.num_examples, fisher.fisher_type, {"a.weight": "no rule"})
    fisher.save(tmp_path / "fisher.safetensors")
    loaded = FisherDiagonal.load(tmp_path / "fisher.safetensors")
    assert (loaded.num_examples, loaded.fisher_type) == (11, "sampled")
    assert loaded.fallback_parameters == fisher.fallback_parameters
    assert loaded.sums.keys() == fisher.sums.keys()
    for name, total in fisher.sums.items():
        assert loaded.sums[name].dtype == total.dtype
        assert torch.equal(loaded.sums[name], total)
    assert (loaded + fisher).num_examples == 22
    assert [path.name for path in tmp_path.iterdir()] == ["fisher.safetensors"]


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    path = tmp_path / "fisher.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        FisherDiagonal({"w": torch.ones(2)}, 1).save(path)
    assert path.read_bytes() == b"mine"


def test_a_failed_save_leaves_nothing(tmp_path):
    shared = torch.ones(2)
    with pytest.raises(RuntimeError, match="share memory"):
        FisherDiagonal({"v": shared, "w": shared}, 1).save(tmp_path / "fisher.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text").write_text("x")
    with pytest.raises(ValueError, match="is no safetensors file"):
        FisherDiagonal.load(tmp_path / "text")
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the metadata of a Fisher diagonal"):
        FisherDiagonal.load(tmp_path / "model.safetensors")
