# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace

import pytest
import torch

from hf_deepclean import FisherDiagonal, cancellation_error, select_random_weights, select_weights
from hf_deepclean.selection.largest import LargestRatios


def diagonals(seed=0, forget_part=0.5):
    """Sums over ten examples, and over the two forget examples among them, at most this part of the whole."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.rand(40, 50, generator=generator, dtype=torch.float64) + 0.1
    part = whole * forget_part * torch.rand(40, 50, generator=generator, dtype=torch.float64)
    return whole, part


def as_fisher(sums, num_examples):
    return FisherDiagonal({"layer.weight": sums.float()}, num_examples)


@pytest.mark.parametrize("rule", [{"gamma": 1.0}, {"reset_fraction": 0.2}, {}], ids=["gamma", "fraction", "adaptive"])
@pytest.mark.parametrize("retained", [0.5, 1e-3, 1e-5])
def test_no_weight_changes_sides_that_was_not_called_undecided(rule, retained):
    generator = torch.Generator().manual_seed(0)
    rest = retained * (torch.rand(40, 50, generator=generator, dtype=torch.float64) + 0.1)
    part = torch.rand(40, 50, generator=generator, dtype=torch.float64) + 0.1
    kept, forget = as_fisher(rest + part, 10), as_fisher(part, 2)
    # The result of a real pass. The rounding of the forget sums is left out of the comparison.
    exact = FisherDiagonal({"layer.weight": rest + part - forget.sums["layer.weight"].double()}, 8)
    selected, expected = (select_weights(forget, retain, **rule) for retain in (kept - forget, exact))
    error = cancellation_error(kept, forget, selected)
    chosen, wanted = (set(s.indices["layer.weight"].tolist()) for s in (selected, expected))
    assert len(chosen ^ wanted) <= error.num_undecided
    assert error.num_weights == 2000 and error.num_selected == len(chosen)


def test_the_weight_that_is_the_threshold_is_decided_where_the_rule_counts_weights():
    whole, part = diagonals()
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    for selection in (
        select_weights(forget, kept - forget, reset_fraction=0.02),
        LargestRatios(forget, kept - forget).select(40),
    ):
        error = cancellation_error(kept, forget, selection)
        assert selection.num_selected == 40 and error.num_undecided == 0 and not error.matters
        as_gamma = replace(selection, rule="gamma")
        assert cancellation_error(kept, forget, as_gamma).undecided_per_parameter == {"layer.weight": 1}


def test_undecided_weights_call_for_a_pass_and_decided_ones_do_not():
    whole, part = diagonals()
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    error = cancellation_error(kept, forget, select_weights(forget, kept - forget, gamma=1.0))
    assert not error.matters and error.undecided_share <= 1e-3 and error.median_relative_error < 1e-5
    nearly_all = whole * (1 - 1e-5 * torch.rand(40, 50, dtype=torch.float64))
    forget = as_fisher(nearly_all, 9)
    error = cancellation_error(kept, forget, select_weights(forget, kept - forget, reset_fraction=0.3))
    assert error.matters and error.undecided_per_parameter == {"layer.weight": error.num_undecided}
    assert error.num_imprecise == 2000


def test_a_weight_that_only_the_forget_set_uses_is_below_the_error_and_decided():
    whole, part = diagonals()
    part[0] = whole[0]
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    selected = select_weights(forget, kept - forget, gamma=2.0)
    error = cancellation_error(kept, forget, selected)
    assert error.num_below_error == selected.num_infinite_ratios == 50
    assert error.num_undecided == 0


def test_with_a_threshold_at_infinity_all_that_may_be_finite_is_undecided():
    whole, part = diagonals()
    part[:20] = whole[:20]
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    selected = select_weights(forget, kept - forget, reset_fraction=0.1)
    assert math.isinf(selected.gamma)
    assert cancellation_error(kept, forget, selected).num_undecided == 1000


def test_a_weight_without_any_importance_is_decided():
    whole, part = diagonals()
    whole[:, 0] = part[:, 0] = 0
    part[:, 1] = 0
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    error = cancellation_error(kept, forget, select_weights(forget, kept - forget, gamma=1.0))
    assert error.num_below_error == 0 and error.num_undecided == 0 and math.isfinite(error.median_relative_error)


def test_a_random_selection_has_no_threshold_to_compare_with():
    whole, part = diagonals()
    kept, forget = as_fisher(whole, 10), as_fisher(part, 2)
    with pytest.raises(ValueError, match="does not depend on the ratios"):
        cancellation_error(kept, forget, select_random_weights(select_weights(forget, kept, gamma=1.0), 0))
