# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging
import math

import numpy as np
import pytest
import torch

from hf_deepclean import FisherDiagonal, select_weights
from hf_deepclean.selection.rules import check_selection_rule, select_above
from tests.selection.diagonals import diagonals, ratios, selected_mask


@pytest.mark.parametrize("gamma", [0.5, 1.0, 20.0])
def test_gamma_selects_exactly_the_ratios_above_it(gamma):
    forget, retain = diagonals()
    selection = select_weights(forget, retain, gamma=gamma)
    assert torch.equal(selected_mask(selection), ratios(forget, retain) > gamma)
    assert selection.rule == "gamma"
    assert selection.num_in_scope == 1730


def test_a_trial_selects_what_the_rule_does_or_nothing(caplog):
    forget, retain = diagonals()
    retain.sums["a.weight"] /= 1e6
    expected, selection = select_weights(forget, retain, gamma=1.0), select_above(forget, retain, 1.0)
    assert torch.equal(selected_mask(selection), selected_mask(expected))
    assert (selection.rule, selection.gamma, selection.num_weights) == ("gamma", 1.0, expected.num_weights)
    assert "Every weight of a.weight is selected" in caplog.text
    caplog.clear()
    assert select_above(forget, retain, 1e30).num_selected == 0
    assert select_above(forget, retain, 1.0).num_selected == expected.num_selected
    assert caplog.text == ""


def test_the_ratio_compares_means_not_sums():
    sums = {"w": torch.tensor([1.0, 3.0])}
    selection = select_weights(FisherDiagonal(sums, 1), FisherDiagonal({"w": torch.tensor([20.0, 20.0])}, 10), gamma=1)
    assert selection.indices["w"].tolist() == [1]


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 1.0])
def test_reset_fraction_selects_the_global_top_share(fraction):
    forget, retain = diagonals()
    selection = select_weights(forget, retain, reset_fraction=fraction)
    chosen, every = selected_mask(selection), ratios(forget, retain)
    assert selection.num_selected == int(fraction * 1730)
    assert fraction == 1 or every[chosen].min() > every[~chosen].max()
    assert selection.gamma == every[chosen].min().item()


def test_adaptive_selects_the_share_of_assd():
    forget, retain = diagonals(50, 950)
    selection = select_weights(forget, retain)
    assert selection.rule == "adaptive"
    # ASSD as written: the percentile 100 - ln(1 + 100 s) of F_f / F_D, on all data D.
    share = 0.05
    ratio = ratios(forget, retain)
    to_all_data = ratio / (share * ratio + 1 - share)
    alpha = np.percentile(to_all_data.numpy(), 100 - math.log(1 + 100 * share))
    assert torch.equal(selected_mask(selection), to_all_data > alpha)
    assert selection.num_selected / 1730 == pytest.approx(math.log(6) / 100, abs=1 / 1730)


def test_a_weight_that_matters_to_neither_set_is_never_selected_and_to_forget_alone_always():
    forget = FisherDiagonal({"w": torch.tensor([0.0, 0.0, 1e-30, 5.0, 1.0])}, 1)
    retain = FisherDiagonal({"w": torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])}, 1)
    selection = select_weights(forget, retain, gamma=2.0)
    assert selection.indices["w"].tolist() == [2, 3]
    assert selection.num_infinite_ratios == 2
    assert select_weights(forget, retain, reset_fraction=0.2).indices["w"].tolist() == [3]
    assert select_weights(forget, retain, reset_fraction=0.6).indices["w"].tolist() == [2, 3, 4]


def test_a_fraction_beyond_what_matters_selects_all_that_matters_and_says_so(caplog):
    forget = FisherDiagonal({"w": torch.tensor([0.0, 0.0, 1.0, 5.0])}, 1)
    retain = FisherDiagonal({"w": torch.ones(4)}, 1)
    with caplog.at_level(logging.WARNING):
        assert select_weights(forget, retain, reset_fraction=1.0).indices["w"].tolist() == [2, 3]
    assert "only 2 of 4 matter to the forget set" in caplog.text


def test_a_layer_selected_whole_is_warned_of(caplog):
    forget = FisherDiagonal({"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2)}, 1)
    retain = FisherDiagonal({"a.weight": torch.full((2, 2), 0.1), "a.bias": torch.full((2,), 9.0)}, 1)
    with caplog.at_level(logging.WARNING):
        select_weights(forget, retain, gamma=2)
    assert "Every weight of a.weight is selected" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, "`gamma` is 0.0"),
        ({"gamma": -1.0}, "`gamma` is -1.0"),
        ({"gamma": math.nan}, "`gamma` is nan"),
        ({"gamma": math.inf}, "`gamma` is inf"),
        ({"reset_fraction": 0.0}, "`reset_fraction` is 0.0"),
        ({"reset_fraction": 1.5}, "`reset_fraction` is 1.5"),
        ({"reset_fraction": math.nan}, "`reset_fraction` is nan"),
        ({"gamma": 1.0, "reset_fraction": 0.1}, "Both `gamma`"),
        ({"selection": "best"}, "must be one of 'auto', 'gamma', 'reset_fraction', 'adaptive'"),
        ({"selection": "gamma"}, "'gamma' takes `gamma`"),
        ({"selection": "auto"}, "there are only two Fishers here. Use `FisherUnlearner`"),
        ({"selection": "adaptive", "gamma": 1.0}, "'adaptive' and 'auto' take neither"),
        ({"gamma": 1e6}, "No weight was selected: no ratio .* the largest"),
        ({"reset_fraction": 1e-6}, "less than one weight"),
    ],
)
def test_bad_rules_and_empty_selections_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_weights(*diagonals(), **arguments)


def test_the_rule_by_trials_is_the_default_where_there_is_a_model_to_try_on():
    assert check_selection_rule(None, None, None) == "adaptive"
    assert check_selection_rule(None, None, None, by_trials=True) == "auto"
    assert check_selection_rule("adaptive", None, None, by_trials=True) == "adaptive"
    assert check_selection_rule(None, 1.0, None, by_trials=True) == "gamma"
    with pytest.raises(ValueError, match="'adaptive' and 'auto' take neither"):
        check_selection_rule("auto", None, 0.1, by_trials=True)


def test_a_forget_set_without_any_fisher_selects_nothing():
    forget, retain = FisherDiagonal({"w": torch.zeros(3)}, 1), FisherDiagonal({"w": torch.ones(3)}, 1)
    for arguments in ({"gamma": 1.0}, {"reset_fraction": 0.5}, {}):
        with pytest.raises(ValueError, match="the forget Fisher is 0 for every weight"):
            select_weights(forget, retain, **arguments)


def test_diagonals_of_different_scope_are_refused():
    forget, retain = diagonals()
    retain.sums.pop("a.bias")
    with pytest.raises(ValueError, match="cannot be compared"):
        select_weights(forget, retain, gamma=1)


@pytest.mark.parametrize("arguments", [{"gamma": 2.0}, {"reset_fraction": 0.07}, {"reset_fraction": 1.0}, {}])
def test_the_size_of_the_blocks_does_not_matter(monkeypatch, arguments):
    forget, retain = diagonals()
    # With few values, so that there are ties in different blocks.
    forget, retain = (FisherDiagonal({n: (30 * v).ceil() for n, v in f.sums.items()}, 7) for f in (forget, retain))
    expected = select_weights(forget, retain, **arguments)
    monkeypatch.setattr("hf_deepclean.selection.ratios._BLOCK_SIZE", 37)
    selection = select_weights(forget, retain, **arguments)
    assert (selection.gamma, selection.num_infinite_ratios) == (expected.gamma, expected.num_infinite_ratios)
    assert torch.equal(selected_mask(selection), selected_mask(expected))


def test_ties_go_to_the_larger_forget_fisher_and_then_to_the_first():
    forget = FisherDiagonal({"a": torch.tensor([2.0, 4.0, 1.0, 4.0]), "b": torch.tensor([4.0, 8.0])}, 1)
    retain = FisherDiagonal({"a": torch.tensor([1.0, 2.0, 1.0, 2.0]), "b": torch.tensor([2.0, 4.0])}, 1)
    for fraction, expected in [
        (1 / 6, ([], [1])),
        (0.34, ([1], [1])),
        (0.51, ([1, 3], [1])),
        (0.84, ([0, 1, 3], [0, 1])),
    ]:
        selection = select_weights(forget, retain, reset_fraction=fraction)
        assert ([selection.indices.get(name, torch.tensor([])).tolist() for name in "ab"]) == list(expected)
