# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from hf_deepclean.repair.hard_examples import HardExampleSampler
from tests import tiny
from tests.reset.models import outside
from tests.unlearner.runs import FORGET, RETAIN, auto_unlearner_for, class_request, fishers, splits, unlearner_for
from tests.unlearner.test_selection_by_trials import same_selection


def penalised(directory, **kwargs):
    """A run whose repair would bring all forget data back."""
    arguments = {"num_train_epochs": 10, "learning_rate": 2e-2, "per_device_train_batch_size": 16}
    unlearner = auto_unlearner_for(directory, **(arguments | kwargs))
    return unlearner, unlearner.unlearn()


def test_a_penalty_keeps_the_repair_from_bringing_the_forget_data_back(tmp_path):
    (free, without), (held, report) = (
        penalised(tmp_path / name, forget_penalty=weight) for name, weight in (("a", 0.0), ("b", None))
    )
    assert same_selection(free, held)
    losses = [one.stages["after_repair"].splits["forget"].mean_loss for one in (without, report)]
    before = report.stages["before"].splits["unseen"].mean_loss
    assert losses[0] < 0.5 * before and losses[1] > 2 * losses[0]
    assert report.stages["after_repair"].splits["retain"].accuracy > 0.9
    # The penalty moves the selected weights alone.
    frozen = outside(tiny.trained(), held.selection)
    assert all(torch.equal(value, frozen[name]) for name, value in outside(held.model, held.selection).items())
    note = "In some of its steps the repair held the forget data to the losses of the unseen ones (weight 1.5)"
    assert note in str(report) and note not in str(without)


def test_the_penalty_is_left_out_where_nothing_says_how_much_is_known_of_unseen_data(tmp_path):
    for data, kwargs in (
        (splits(), {"reset_fraction": 0.2}),
        (splits(), {"forget_penalty": 0.0}),
        (class_request(), {}),
    ):
        unlearner = auto_unlearner_for(tmp_path / "a", data, **kwargs)
        unlearner.select_weights(*fishers(unlearner))
        assert unlearner._phases.plan_repair(unlearner.search).make_penalty is None
    data = {name: dataset for name, dataset in splits().items() if name != "unseen_dataset"}
    unlearner = unlearner_for(tmp_path / "a", tiny.trained(), data, reset_fraction=None, num_selection_trials=1)
    unlearner.select_weights(*fishers(unlearner))
    assert unlearner._phases.plan_repair(unlearner.search).make_penalty is None


def rows_of_the_epochs(unlearner):
    """The rows that every epoch of a repair reads, each with its loss."""
    epochs, record = {}, HardExampleSampler.record

    def noted(order, rows, losses):
        epochs.setdefault(order.epoch, []).extend(zip(rows, losses, strict=True))
        record(order, rows, losses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HardExampleSampler, "record", noted)
        unlearner.unlearn()
    return epochs


def test_after_its_first_epoch_a_repair_reads_the_rows_with_the_largest_losses(tmp_path):
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "hard_example_share": 0.5}
    unlearner = auto_unlearner_for(tmp_path / "a", **arguments)
    epochs = rows_of_the_epochs(unlearner)
    assert sorted(row for row, _ in epochs[0]) == list(range(len(RETAIN)))
    hardest = sorted(epochs[0], key=lambda pair: pair[1])[len(RETAIN) // 2 :]
    assert sorted(row for row, _ in epochs[1]) == sorted(2 * [row for row, _ in hardest])


@pytest.mark.parametrize(
    ("kwargs", "share"),
    [
        ({}, 0.5),
        ({"hard_example_share": 1.0}, 1.0),
        ({"hard_example_share": 0.25}, 0.25),
        ({"reset_fraction": 0.2}, 1.0),
        ({"reset_fraction": 0.2, "hard_example_share": 0.25}, 0.25),
        ({"train_sampling_strategy": "sequential"}, 1.0),
    ],
)
def test_rows_are_ordered_by_their_losses_where_all_were_known_or_where_that_is_asked_for(tmp_path, kwargs, share):
    unlearner = auto_unlearner_for(tmp_path / "a")
    predictions = unlearner._phases.make_evaluator().predict(unlearner.model, tiny.digits(), "try")
    answers = predictions.log_probabilities.argmax(axis=1)
    known = [row for row in RETAIN if answers[row] == tiny.digits()[row]["labels"]]
    data = splits(retain_dataset=tiny.digits().select(known))
    report = auto_unlearner_for(tmp_path / "a", data, num_train_epochs=2, **kwargs).unlearn()
    assert report.settings["hard_example_share"] == share


def test_rows_that_a_model_never_knew_are_not_what_its_repair_is_about(tmp_path):
    report = auto_unlearner_for(tmp_path / "a").unlearn()
    assert report.search.before.retain < 0.95
    assert report.settings["hard_example_share"] == 1.0


def test_rows_of_a_stream_cannot_be_ordered_by_their_losses(tmp_path):
    data = splits(retain_dataset=tiny.digits().select(RETAIN).to_iterable_dataset())
    assert auto_unlearner_for(tmp_path / "a", data, max_steps=3).unlearn().settings["hard_example_share"] == 1.0
    with pytest.raises(ValueError, match="`retain_dataset` is a stream"):
        auto_unlearner_for(tmp_path / "b", data, max_steps=3, hard_example_share=0.5)


def test_streams_are_held_to_unseen_data_too(tmp_path):
    digits = tiny.digits()
    data = {"forget_dataset": digits.select(FORGET).to_iterable_dataset()}
    data["retain_dataset"] = digits.select(RETAIN).to_iterable_dataset()
    report = auto_unlearner_for(tmp_path / "a", data, max_steps=3).unlearn()
    assert "In some of its steps the repair held the forget data" in str(report)


@pytest.mark.parametrize("step", [5, 7, 10, 17])
def test_a_penalised_run_that_is_interrupted_in_any_epoch_ends_in_the_same_bits(tmp_path, step):
    whole, _ = penalised(tmp_path / "a", num_train_epochs=3, hard_example_share=0.5)

    arguments = {"num_train_epochs": 3, "learning_rate": 2e-2, "save_strategy": "steps", "save_steps": 2}
    arguments["hard_example_share"] = 0.5
    unlearner = tiny.interrupt_after(auto_unlearner_for(tmp_path / "b", **arguments), step)
    with pytest.raises(KeyboardInterrupt):
        unlearner.unlearn()
    resumed = auto_unlearner_for(tmp_path / "b", **arguments)
    resumed.unlearn(resume_from_checkpoint=True)
    assert resumed.search == whole.search
    values = tiny.parameters_and_buffers(resumed.model)
    for name, value in tiny.parameters_and_buffers(whole.model).items():
        assert torch.equal(value, values[name]), name


class NoisyRows(torch.utils.data.IterableDataset):
    """A stream that draws noise on its images in every pass, as augmentation does."""

    def __init__(self, first, stop):
        self.rows = tiny.digits().select(range(first, stop))

    def __iter__(self):
        for row in self.rows:
            yield row | {"pixel_values": row["pixel_values"] + 0.1 * torch.randn_like(row["pixel_values"])}


def test_a_repair_draws_the_rows_of_its_penalty_by_its_own_seed(tmp_path):
    data, repaired = splits(forget_dataset=NoisyRows(0, 24)), []
    for seed in range(2):
        unlearner = auto_unlearner_for(tmp_path / "a", dict(data), num_train_epochs=3, learning_rate=2e-2)
        unlearner.unseen_dataset = NoisyRows(tiny.NUM_TRAINED, 200)
        unlearner.select_weights(*fishers(unlearner))
        unlearner.reset_weights()
        torch.manual_seed(seed)
        unlearner.train()
        assert unlearner.plan.make_penalty is not None
        repaired.append(tiny.parameters_and_buffers(unlearner.model))
    first, second = repaired
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
