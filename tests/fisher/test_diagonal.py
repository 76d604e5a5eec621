# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hf_deepclean import FisherDiagonal, accumulate_fisher_diagonal, weights_fingerprint
from hf_deepclean.runtime import sealed_files
from tests import tiny


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
    with pytest.raises(ValueError, match="is not a safetensors file"):
        FisherDiagonal.load(tmp_path / "text")
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the metadata of a Fisher diagonal"):
        FisherDiagonal.load(tmp_path / "model.safetensors")


def test_what_remains_of_a_set_is_its_diagonal_less_that_of_a_subset():
    model, batch = tiny.randomized(tiny.vit()), tiny.image_batch()
    first, second = tiny.in_batches(batch, 6)
    whole, part, rest = (accumulate_fisher_diagonal(model, [examples]) for examples in (batch, first, second))
    difference = whole - part
    assert difference.num_examples == rest.num_examples == 5
    for name, total in rest.sums.items():
        assert torch.allclose(difference.sums[name], total, rtol=1e-9, atol=1e-25)


def test_what_only_the_subset_uses_is_exactly_zero_in_the_rest():
    """As for rows of an embedding, although two passes round differently."""
    torch.manual_seed(0)
    part = torch.rand(50, 40).square()
    part[25:] = 0
    rest = torch.rand(50, 40)
    rest[:10] = 0
    for rounding in (1 - 4e-7, 1.0, 1 + 4e-7):
        whole = FisherDiagonal({"w": (part + rest) * rounding}, 20)
        difference = whole - FisherDiagonal({"w": part}, 5)
        assert torch.equal(difference.sums["w"] == 0, rest == 0)
        assert torch.allclose(difference.sums["w"], rest, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (FisherDiagonal({"v": torch.ones(2)}, 1), "same parameters"),
        (FisherDiagonal({"w": torch.ones(2)}, 1, "expected"), "with the same estimator"),
        (FisherDiagonal({"w": torch.ones(2)}, 1, weights_fingerprint="b" * 64), "same weights"),
        (FisherDiagonal({"w": torch.ones(2)}, 3), "at least one example has to remain"),
        (FisherDiagonal({"w": 4 * torch.ones(2)}, 2), "They are not"),
    ],
)
def test_what_is_no_subset_is_not_subtracted(other, match):
    with pytest.raises(ValueError, match=match):
        FisherDiagonal({"w": 3 * torch.ones(2)}, 3, weights_fingerprint="a" * 64) - other


def test_sampled_labels_are_drawn_anew_and_not_subtracted():
    with pytest.raises(ValueError, match="drawn anew"):
        FisherDiagonal({"w": torch.ones(2)}, 3, "sampled") - FisherDiagonal({"w": torch.ones(2)}, 1, "sampled")


def test_diagonals_at_different_weights_do_not_add_up():
    first, second = (FisherDiagonal({"w": torch.ones(2)}, 1, weights_fingerprint=letter * 64) for letter in "ab")
    with pytest.raises(ValueError, match="only at the same weights"):
        first + second
    assert (first + first).weights_fingerprint == "a" * 64


@pytest.mark.parametrize("max_shard_size", ["5GB", 2000])
def test_a_kept_diagonal_comes_back_with_every_bit_and_with_its_weights(tmp_path, max_shard_size):
    model = tiny.randomized(tiny.vit(), torch.float32)
    batch = tiny.image_batch(dtype=torch.float32)
    fisher = accumulate_fisher_diagonal(model, [batch])
    fisher = replace(fisher, seconds=1.5, fallback_parameters={"a.weight": "no rule"})
    fisher.save_pretrained(tmp_path / "model" / "fisher", model, max_shard_size=max_shard_size)
    kept = FisherDiagonal.from_pretrained(tmp_path / "model" / "fisher")
    assert kept.weights_fingerprint == weights_fingerprint(model)
    assert (kept.num_examples, kept.seconds, kept.fallback_parameters) == (11, 1.5, fisher.fallback_parameters)
    assert kept.sums.keys() == fisher.sums.keys()
    assert all(torch.equal(kept.sums[name], total) for name, total in fisher.sums.items())
    files = [path.name for path in (tmp_path / "model" / "fisher").iterdir()]
    assert all(name.startswith("fisher") for name in files)
    assert ("fisher.safetensors.index.json" in files) == (max_shard_size == 2000) == (len(files) > 1)
    forget = accumulate_fisher_diagonal(model, [tiny.in_batches(batch, 3)[0]])
    assert (kept - forget).num_examples == 8


def test_a_kept_diagonal_is_never_overwritten_and_says_whose_it_is(tmp_path):
    fisher = FisherDiagonal({"w": torch.ones(2)}, 1)
    with pytest.raises(ValueError, match="must say which weights"):
        fisher.save_pretrained(tmp_path)
    model = tiny.vit()
    with pytest.raises(ValueError, match="only at the same weights"):
        replace(fisher, weights_fingerprint="a" * 64).save_pretrained(tmp_path, model)
    assert not list(tmp_path.iterdir())
    fisher.save_pretrained(tmp_path, model)
    before = (tmp_path / "fisher.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        fisher.save_pretrained(tmp_path, model)
    assert (tmp_path / "fisher.safetensors").read_bytes() == before


def test_a_save_that_fails_half_way_leaves_no_diagonal(tmp_path, monkeypatch):
    fisher = FisherDiagonal({"v": torch.ones(8), "w": torch.ones(8)}, 1, weights_fingerprint="a" * 64)
    written = []

    def failing(*args):
        written.append(args)
        if len(written) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(sealed_files, "save_file", failing)
    with pytest.raises(OSError, match="No space left"):
        fisher.save_pretrained(tmp_path / "fisher", max_shard_size=32)
    assert not (tmp_path / "fisher").exists()


def test_a_folder_without_a_diagonal_or_with_half_of_one_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither"):
        FisherDiagonal.from_pretrained(tmp_path)
    fisher = FisherDiagonal({"v": torch.ones(8), "w": torch.ones(8)}, 1, weights_fingerprint="a" * 64)
    fisher.save_pretrained(tmp_path, max_shard_size=32)
    (tmp_path / "fisher-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        FisherDiagonal.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [
        (None, "one pass over 1,200 examples"),
        (7.25, "one pass over 1,200 examples, which took 7.2 seconds on the machine that made this one"),
        (5400, "one pass over 1,200 examples, which took 90 minutes on the machine that made this one"),
    ],
)
def test_a_refresh_has_a_price(seconds, cost):
    assert FisherDiagonal({"w": torch.ones(2)}, 1200, seconds=seconds).refresh_cost() == cost


def test_a_request_that_a_kept_diagonal_does_not_fit_is_refused():
    model = tiny.vit()
    kept = FisherDiagonal({"w": torch.ones(2)}, 9, weights_fingerprint=weights_fingerprint(model))
    kept.check_fits(model, ["w"], "empirical")
    for parameters, fisher_type, match in (
        (["w", "v"], "empirical", "1 are on one side only, v"),
        (["w"], "expected", "'empirical' and the request 'expected'"),
    ):
        with pytest.raises(ValueError, match=match):
            kept.check_fits(model, parameters, fisher_type)
    with pytest.raises(ValueError, match="does not say which weights"):
        replace(kept, weights_fingerprint=None).check_fits(model, ["w"], "empirical")
    with torch.no_grad():
        model.classifier.bias += 1
    with pytest.raises(ValueError, match="is stale.*A refresh costs one pass over 9 examples"):
        kept.check_fits(model, ["w"], "empirical")
