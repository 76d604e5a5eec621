# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
from itertools import pairwise

import datasets
import numpy as np
import pytest
import torch

from hf_deepclean import WeightSelection
from hf_deepclean.report.json_record import from_json_types, to_json_types
from hf_deepclean.selection.knowledge import knowledge
from hf_deepclean.selection.search import (
    _FEW_REPAIR_STEPS,
    _SMALLEST_SHARE,
    LEAST_KNOWLEDGE_LEFT,
    MIN_KNOWLEDGE_LEFT,
    MIN_KNOWLEDGE_LEFT_FOR_CHANCE,
    MIN_KNOWLEDGE_LEFT_OF_LANGUAGE,
    MIN_KNOWLEDGE_LEFT_OF_SMALL,
    SMALL_REQUEST,
    SelectionSearch,
    UnrecoverableResetError,
    is_small_request,
    min_knowledge_left,
    search_selection,
)
from tests.selection.answers import NUM_CLASSES, answers, likelihoods, token_answers


NUM_WEIGHTS = 100_000
# Number of steps of a long repair.
MANY = 1000
CHANCE = 1 / NUM_CLASSES


def both(forget, retain):
    return {"forget": answers(forget), "retain": answers(retain)}


def select(number):
    assert 1 <= number <= NUM_WEIGHTS
    return WeightSelection({"weight": torch.arange(number)}, {"weight": NUM_WEIGHTS}, "auto", 1 / number)


class Model:
    """A model whose knowledge depends on the number of weights that were reset. It records the trials."""

    def __init__(self, retain, forget=lambda selection: 0.5):
        self.retain, self.forget, self.tried = retain, forget, []

    def __call__(self, selection):
        self.tried.append(selection.num_selected)
        return both(self.forget(selection), self.retain(selection))

    def search(self, num_trials=6, before=None, target="unseen", unseen=None, num_candidates=NUM_WEIGHTS, **kwargs):
        before = before or both(1.0, 1.0)
        return search_selection(num_candidates, select, before, self, target, num_trials, MANY, unseen, **kwargs)


def collapsing_above(limit):
    return Model(lambda selection: 1.0 if selection.num_selected <= limit else CHANCE)


@pytest.mark.parametrize("num_trials", [1, 3, 6, 12])
@pytest.mark.parametrize("share", [0.004, 0.05, 0.3, 0.999, 2.0])
def test_the_deepest_reset_that_is_no_collapse_is_found_as_finely_as_the_trials_allow(share, num_trials):
    limit, model = share * NUM_WEIGHTS, collapsing_above(share * NUM_WEIGHTS)
    # The upper bound of the search divided by the lower one, after all trials.
    resolution = (1 / _SMALLEST_SHARE) ** (0.5**num_trials)
    if limit < _SMALLEST_SHARE * NUM_WEIGHTS * resolution:
        with pytest.raises(UnrecoverableResetError):
            model.search(num_trials=num_trials)
    else:
        selection, search = model.search(num_trials=num_trials)
        assert selection.num_selected <= limit
        assert min(limit, NUM_WEIGHTS) <= resolution * (selection.num_selected + 1)
        assert search.trials[search.chosen].num_selected == selection.num_selected
    assert len(model.tried) == num_trials


def test_of_a_single_weight_there_is_one_reset_to_try():
    selection, search = collapsing_above(1).search(num_trials=2, num_candidates=1)
    assert [trial.num_selected for trial in search.trials] == [1, 1]
    assert selection.num_selected == 1


@pytest.mark.parametrize("seed", range(20))
def test_no_reset_is_chosen_that_leaves_less_than_the_guard(seed):
    generator = np.random.default_rng(seed)
    model = Model(lambda selection: generator.uniform(), lambda selection: generator.uniform())
    before = both(1.0, generator.uniform(0.2, 1.0))
    enough = CHANCE + MIN_KNOWLEDGE_LEFT * (knowledge(before["retain"]) - CHANCE)
    try:
        selection, search = model.search(num_trials=4, before=before)
    except UnrecoverableResetError as error:
        assert str(error).count("%") == 3 * 4 + 2
        return
    chosen = search.trials[search.chosen]
    assert chosen.retain >= enough
    assert (chosen.num_selected, chosen.gamma) == (selection.num_selected, selection.gamma)
    # The trial that was accepted last is the deepest.
    accepted = [trial for trial in search.trials if trial.retain >= enough]
    assert all(first.num_selected < second.num_selected for first, second in pairwise(accepted))
    assert accepted[-1] is chosen
    assert model.tried == [trial.num_selected for trial in search.trials]


def test_what_is_left_is_counted_from_chance_and_not_from_zero():
    before = both(1.0, 0.5)
    enough = CHANCE + MIN_KNOWLEDGE_LEFT * (0.5 - CHANCE)
    _, search = Model(lambda selection: enough + 0.002).search(before=before)
    assert search.chosen == len(search.trials) - 1
    with pytest.raises(UnrecoverableResetError):
        Model(lambda selection: enough - 0.002).search(before=before)


def test_where_every_reset_collapses_the_refusal_shows_what_was_tried_and_what_to_do():
    model = Model(lambda selection: CHANCE, lambda selection: 0.25)
    with pytest.raises(UnrecoverableResetError, match="exclude_modules") as refusal:
        model.search(num_trials=3)
    text = str(refusal.value)
    assert f"down to {min(model.tried):,} weights" in text and "nothing was changed" in text
    assert "forget accuracy  retain accuracy\nnothing  100.0 %  100.0 %\n" in text
    for number in model.tried:
        assert f"\n{100 * number / NUM_WEIGHTS:.3g} %  25.0 %  10.0 %\n" in text
    assert "(chosen)" not in text


@pytest.mark.parametrize("known", [CHANCE, CHANCE / 2, 0.0])
def test_a_model_that_knows_no_more_than_chance_is_refused_before_any_trial(known):
    model = collapsing_above(NUM_WEIGHTS)
    with pytest.raises(ValueError, match=f"accuracy on a sample of 1000 retain examples is {known:.3f}, and"):
        model.search(before=both(1.0, known))
    assert model.tried == []


@pytest.mark.parametrize("of_base", [0.05, 0.3, 0.6])
def test_what_the_base_of_an_adapter_knows_is_no_part_of_what_a_reset_has_to_leave(of_base):
    model = Model(lambda selection: 1 - 0.7 * selection.num_selected / NUM_WEIGHTS)
    base = both(0.0, of_base)["retain"]
    selection, search = search_selection(NUM_WEIGHTS, select, both(1.0, 1.0), model, "unseen", 12, MANY, base=base)
    least = max(CHANCE, of_base)
    assert search.chance == least
    left = search.trials[search.chosen].retain
    assert left == pytest.approx(least + MIN_KNOWLEDGE_LEFT * (1 - least), abs=0.01)


def test_an_adapter_that_knows_less_than_its_base_may_be_reset_as_a_whole():
    model = Model(lambda selection: 0.5)
    base = both(0.0, 0.7)["retain"]
    selection, search = search_selection(NUM_WEIGHTS, select, both(1.0, 0.5), model, "unseen", 6, MANY, base=base)
    assert search.chance == search.before.retain == 0.5
    assert search.chosen == len(search.trials) - 1


def test_the_table_has_every_trial_by_its_size_and_marks_the_chosen_one():
    selection, search = collapsing_above(1000).search(num_trials=3, target="chance")
    header, nothing, *rows = search.rows(NUM_WEIGHTS)
    assert header[1:] == ["forget accuracy", "retain accuracy"]
    assert nothing == ["nothing", "100.0 %", "100.0 %"]
    shares = [float(row[0].split(" %")[0]) for row in rows]
    assert len(shares) == 3 and shares == sorted(shares)
    (marked,) = (row for row in rows if "(chosen)" in row[0])
    assert marked[0].startswith(f"{100 * selection.num_selected / NUM_WEIGHTS:.3g} %")


@pytest.mark.parametrize("unseen", [None, answers(0.8)])
def test_a_search_survives_the_round_trip_through_json(unseen):
    _, search = collapsing_above(1000).search(target="unseen", unseen=unseen)
    assert from_json_types(SelectionSearch, json.loads(json.dumps(to_json_types(search)))) == search
    _, search = collapsing_above(1000).search(target="chance")
    assert search.num_examples == {"forget": 1000, "retain": 1000}
    assert (search.target, search.measure, search.chance) == ("chance", "accuracy", CHANCE)
    assert (search.before.num_selected, search.before.gamma) == (0, None)


def test_the_losses_of_unseen_data_are_kept_as_quantiles_where_the_forget_data_are_to_look_like_them():
    unseen = answers(0.7, size=300)
    _, search = collapsing_above(1000).search(unseen=unseen)
    losses = -unseen.log_likelihood
    assert np.allclose(search.unseen_losses, np.quantile(losses, np.linspace(0, 1, 101)))
    assert search.num_examples == {"forget": 1000, "retain": 1000, "unseen": 300}
    assert collapsing_above(1000).search(target="chance", unseen=unseen)[1].unseen_losses is None
    assert collapsing_above(1000).search()[1].unseen_losses is None


def test_the_loss_of_an_unseen_text_is_counted_per_token():
    correct, counts = [1, 1, 1, 0, 0, 0], [3, 1, 2]
    text = token_answers(correct, counts)
    unseen = search_selection(
        NUM_WEIGHTS,
        select,
        {"forget": text, "retain": text},
        lambda _: {"forget": text, "retain": text},
        "unseen",
        1,
        MANY,
        text,
    )[1].unseen_losses
    assert (unseen[0], unseen[50], unseen[100]) == pytest.approx((0.1, 3.0, 3.0))


@pytest.mark.parametrize(
    ("before", "left", "measure", "chance"),
    [
        (token_answers([1] * 8, [4, 4]), token_answers([1] * 7 + [0], [4, 4]), "token accuracy", 0.0),
        (
            token_answers([1] * 8, [4, 4], np.array([0, 1, 1, 1, 1, 1, 2, 2])),
            token_answers([1] * 7 + [0], [4, 4], np.array([0, 1, 1, 1, 1, 1, 2, 2])),
            "token accuracy",
            5 / 8,
        ),
        (
            token_answers([1] * 8, [4, 4], np.full(8, 2)),
            token_answers([1] * 7 + [0], [4, 4], np.full(8, 2)),
            "token accuracy",
            0.0,
        ),
        (likelihoods([0.5, 0.5]), likelihoods([0.4, 0.5]), "1 / (1 + loss)", 0.0),
    ],
)
def test_chance_is_what_is_known_by_the_answer_that_fits_most(before, left, measure, chance):
    _, search = search_selection(
        NUM_WEIGHTS,
        select,
        {"forget": before, "retain": before},
        lambda selection: {"forget": left, "retain": left},
        "unseen",
        2,
        MANY,
    )
    assert (search.measure, search.chance) == (measure, chance)
    assert search.before.retain == knowledge(before)
    assert {trial.retain for trial in search.trials} == {knowledge(left)}


def test_the_more_is_known_by_heart_the_less_has_to_be_left_within_bounds_and_never_of_a_class():
    assert min_knowledge_left("unseen", MANY, answers(0.9), None) == MIN_KNOWLEDGE_LEFT
    assert min_knowledge_left("chance", MANY, answers(1.0), answers(0.2)) == MIN_KNOWLEDGE_LEFT_FOR_CHANCE
    for known in (0.8, 0.9):
        assert min_knowledge_left("unseen", MANY, answers(known), answers(0.9)) == MIN_KNOWLEDGE_LEFT
    assert min_knowledge_left("unseen", MANY, answers(1.0), answers(0.95)) == pytest.approx(MIN_KNOWLEDGE_LEFT - 0.075)
    assert min_knowledge_left("unseen", MANY, answers(1.0), answers(0.1)) == LEAST_KNOWLEDGE_LEFT


@pytest.mark.parametrize("num_steps", [0, 1, _FEW_REPAIR_STEPS - 1, _FEW_REPAIR_STEPS])
def test_no_deep_reset_is_left_to_a_repair_of_few_steps(num_steps):
    for target, deep in (("chance", MIN_KNOWLEDGE_LEFT_FOR_CHANCE), ("unseen", LEAST_KNOWLEDGE_LEFT)):
        left = min_knowledge_left(target, num_steps, answers(1.0), answers(0.1))
        assert left == (MIN_KNOWLEDGE_LEFT if num_steps < _FEW_REPAIR_STEPS else deep)


def test_a_language_model_keeps_more_and_a_classifier_of_tokens_is_a_classifier():
    known, unknown = [1] * 8, [1] + [0] * 7
    texts = token_answers(known, [4, 4]), token_answers(unknown, [4, 4])
    assert min_knowledge_left("unseen", MANY, *texts) == MIN_KNOWLEDGE_LEFT_OF_LANGUAGE
    assert min_knowledge_left("unseen", MANY, texts[0], None) == MIN_KNOWLEDGE_LEFT
    classes = np.arange(8) % 3
    tagged = token_answers(known, [4, 4], classes), token_answers(unknown, [4, 4], classes)
    assert min_knowledge_left("unseen", MANY, *tagged) == LEAST_KNOWLEDGE_LEFT


def test_unseen_data_let_the_search_go_deeper():
    model = Model(lambda selection: 1 - selection.num_selected / NUM_WEIGHTS)
    (shallow, first), (deep, second) = (model.search(unseen=unseen) for unseen in (None, answers(0.2)))
    assert (first.min_left, second.min_left) == (MIN_KNOWLEDGE_LEFT, LEAST_KNOWLEDGE_LEFT)
    assert shallow.num_selected < deep.num_selected


def test_a_request_of_at_most_fifty_examples_is_small():
    assert is_small_request(range(1)) and is_small_request(range(SMALL_REQUEST))
    assert not is_small_request(range(SMALL_REQUEST + 1))
    assert not is_small_request(datasets.Dataset.from_dict({"x": [1]}).to_iterable_dataset())


def fading():
    """A model that knows less with every further weight that is reset."""
    return Model(lambda selection: 1 - 0.9 * selection.num_selected / NUM_WEIGHTS)


def test_the_reset_of_a_small_request_is_shallow():
    large, small = (fading().search(unseen=answers(0.9), num_trials=12, is_small=few)[1] for few in (False, True))
    assert (large.min_left, small.min_left) == (pytest.approx(0.35), MIN_KNOWLEDGE_LEFT_OF_SMALL)
    left = [search.trials[search.chosen].retain for search in (large, small)]
    assert left[0] < 0.5 and 0.95 <= left[1] < 0.97


def test_without_unseen_data_and_if_classes_are_to_go_a_small_request_is_like_any_other():
    for arguments in ({}, {"target": "chance"}, {"target": "chance", "unseen": answers(0.0)}):
        large, small = (fading().search(**arguments, is_small=few)[1] for few in (False, True))
        assert large == small


def test_if_no_reset_is_shallow_enough_a_small_request_gets_the_shallowest_that_a_repair_recovers_from():
    model = Model(lambda selection: 0.8)
    selection, search = model.search(unseen=answers(0.9), is_small=True)
    assert selection.num_selected == min(model.tried) == search.trials[search.chosen].num_selected
    assert search.min_left == pytest.approx(0.35)
    with pytest.raises(UnrecoverableResetError):
        Model(lambda selection: 0.3).search(unseen=answers(0.9), is_small=True)


def test_a_rewound_model_is_reset_no_deeper_than_makes_the_forget_data_as_unknown_as_unseen_data():
    # The retain data bear half of all weights; from a twentieth on the forget data are below the unseen ones.
    def model():
        return Model(
            lambda selection: 1.0 if selection.num_selected <= NUM_WEIGHTS / 2 else CHANCE,
            lambda selection: 0.4 if selection.num_selected >= NUM_WEIGHTS / 20 else 0.9,
        )

    (deep, _), (shallow, search) = (model().search(unseen=answers(0.5), is_rewound=is_it) for is_it in (False, True))
    assert NUM_WEIGHTS / 20 <= shallow.num_selected < deep.num_selected / 3
    assert search.trials[search.chosen].num_selected == shallow.num_selected
    # If no trial reaches that, the deepest that the retain data bear counts.
    never = Model(lambda selection: 1.0 if selection.num_selected <= NUM_WEIGHTS / 2 else CHANCE, lambda _: 0.9)
    assert never.search(unseen=answers(0.5), is_rewound=True)[0].num_selected == deep.num_selected
