# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch

from hf_deepclean import FisherDiagonal, accumulate_fisher_diagonal, select_weights
from hf_deepclean.evaluation.results import ClassResult
from hf_deepclean.reset.resetter import Resetter
from hf_deepclean.runtime.clock import PhaseClock
from hf_deepclean.selection.selector import WeightSelector
from tests import tiny
from tests.evaluation.evaluators import evaluator_for, splits
from tests.selection.diagonals import diagonals


@pytest.fixture(scope="module")
def model():
    return tiny.trained()


@pytest.fixture(scope="module")
def fishers(model):
    """The Fishers of the forget and of the retain set."""
    return {
        split: accumulate_fisher_diagonal(model, tiny.in_batches(splits()[split][:], 16))
        for split in ("forget", "retain")
    }


def selector_for(model, rule="auto", **kwargs):
    defaults = {"gamma": None, "reset_fraction": None, "forget_share": 0.3, "target": None, "num_trials": 3}
    defaults |= {"num_trial_examples": 16, "max_unseen_examples": 20, "num_repair_steps": 1000}
    return WeightSelector(model, rule, **(defaults | {"is_adapter": False, "is_sharded": False} | kwargs))


def never(*args):
    pytest.fail("tried a reset")


def assert_same(first, second):
    assert first.indices.keys() == second.indices.keys()
    assert all(torch.equal(indices, second.indices[name]) for name, indices in first.indices.items())
    assert replace(first, indices={}) == replace(second, indices={})


@pytest.mark.parametrize("rule", [{"gamma": 1.0}, {"reset_fraction": 0.1}, {}])
def test_a_rule_selects_by_the_fishers_alone(rule):
    pair, name = diagonals(), next(iter(rule), "adaptive")
    selection, search = selector_for(None, name, **rule).select(*pair, None, never)
    assert search is None
    assert_same(selection, select_weights(*pair, name, forget_share=0.3, **rule))


def test_a_search_tries_resets_on_samples_and_leaves_the_model_as_it_was(tmp_path, model, fishers):
    before, sizes = tiny.parameters_and_buffers(model), []
    evaluator, resetter = evaluator_for(tmp_path, model), Resetter(model, "zero")

    def tried(selection, evaluate):
        sizes.append(selection.num_selected)
        return resetter.try_reset(selection, evaluate)

    selection, search = selector_for(model).select(*fishers.values(), evaluator, tried)
    assert sizes == [trial.num_selected for trial in search.trials] and len(sizes) == 3
    assert selection.rule == "auto" and selection.num_selected == sizes[search.chosen]
    assert search.num_examples == {"forget": 16, "retain": 16, "unseen": 20}
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())


def test_metrics_of_the_caller_are_left_out_of_the_trials(tmp_path, model, fishers):
    evaluator = evaluator_for(tmp_path, model, compute_metrics=lambda outcome: pytest.fail("computed"))
    _, search = selector_for(model).select(*fishers.values(), evaluator, Resetter(model, "zero").try_reset)
    assert search.chosen is not None


def test_a_reset_value_that_the_weights_do_not_have_counts_as_no_change(tmp_path, model, fishers):
    evaluator = evaluator_for(tmp_path, model)
    _, search = selector_for(model).select(*fishers.values(), evaluator, lambda selection, evaluate: None)
    assert {(trial.forget, trial.retain) for trial in search.trials} == {(search.before.forget, search.before.retain)}


def test_the_target_follows_from_the_classes_of_all_data_if_they_are_known(tmp_path, model, fishers):
    evaluator, tried = evaluator_for(tmp_path, model), Resetter(model, "zero").try_reset
    before = evaluator.evaluate(model)
    apart = {split: replace(result, per_class={split: ClassResult(1, 1.0)}) for split, result in before.splits.items()}
    targets = [
        selector_for(model, target=target).select(*fishers.values(), evaluator, tried, results)[1].target
        for target, results in [
            (None, None),
            (None, before),
            (None, replace(before, splits=apart)),
            ("unseen", replace(before, splits=apart)),
        ]
    ]
    assert targets == ["unseen", "unseen", "chance", "unseen"]


def test_what_no_reset_takes_from_an_adapter_is_its_chance(tmp_path, model, fishers):
    evaluator, tried = evaluator_for(tmp_path, model), lambda selection, evaluate: None
    _, search = selector_for(model, is_adapter=True).select(*fishers.values(), evaluator, tried)
    assert search.chance == search.before.retain


def choose(computed, kept=None, **rule):
    """Returns the chosen weights, and the data sets whose Fishers were computed."""
    splits_computed = []

    def compute(split):
        splits_computed.append(split)
        return computed[split]

    name = next(iter(rule), "adaptive")
    return selector_for(None, name, **rule).compute_and_select(compute, None, never, kept=kept), splits_computed


def test_both_fishers_are_computed_if_none_was_kept():
    forget, retain = diagonals()
    chosen, computed = choose({"forget": forget, "retain": retain}, gamma=1.0)
    assert computed == ["forget", "retain"]
    assert (chosen.forget, chosen.retain, chosen.kept_fisher, chosen.search) == (forget, retain, None, None)
    assert_same(chosen.selection, select_weights(forget, retain, gamma=1.0))


def test_a_kept_fisher_spares_the_pass_over_the_retain_set():
    forget, retain = diagonals()
    chosen, computed = choose({"forget": forget}, forget + retain, reset_fraction=0.1)
    assert computed == ["forget"] and not chosen.kept_fisher.retain_pass
    assert chosen.kept_fisher.num_examples == 100
    assert_same(chosen.selection, select_weights(forget, (forget + retain) - forget, reset_fraction=0.1))


def test_where_rounding_could_change_the_selection_the_retain_fisher_is_computed_after_all():
    forget, retain = diagonals()
    # The kept sums are rounded by more than these.
    retain = FisherDiagonal({name: 1e-8 * total for name, total in retain.sums.items()}, retain.num_examples)
    chosen, computed = choose({"forget": forget, "retain": retain}, forget + retain, gamma=1e9)
    assert computed == ["forget", "retain"] and chosen.kept_fisher.retain_pass
    assert chosen.kept_fisher.cancellation.matters and chosen.retain is retain
    assert_same(chosen.selection, select_weights(forget, retain, gamma=1e9))


def test_only_the_selection_is_timed(tmp_path, model, fishers):
    clock = PhaseClock()
    evaluator = evaluator_for(tmp_path, model, clock=clock)
    resetter = Resetter(model, "zero", clock=clock)
    selector_for(model, clock=clock).select(*fishers.values(), evaluator, resetter.try_reset)
    assert clock.seconds.keys() == {"selection"}
