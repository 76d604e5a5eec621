# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The same runs in one, two and three processes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification

from hf_deepclean import UnlearningReport
from tests.launched.launch import run_script
from tests.launched.worlds import SIZES, WORLDS
from tests.tiny import parameters_and_buffers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def worlds(folder):
    """The results of all processes, by the number of processes."""
    done = run_script("worlds.py", folder)
    assert done.returncode == 0, done.stderr
    return {
        world: [torch.load(folder / str(world) / f"{index}-of-{world}.pt") for index in range(world)]
        for world in WORLDS
    }


def assert_close(first, second):
    """Checks that the values differ by at most a millionth of the largest value of the parameter."""
    assert first.keys() == second.keys()
    for name, total in first.items():
        assert (total - second[name]).abs().max() <= 1e-6 * total.abs().max(), name


@pytest.mark.parametrize("kind", ["empirical", "sampled"])
@pytest.mark.parametrize("world", [2, 3])
def test_the_fisher_does_not_depend_on_the_number_of_processes(worlds, world, kind):
    one, several = (worlds[count][-1]["even"]["fishers"][kind] for count in (1, world))
    assert len(one) == len(several) == 2
    for first, second in zip(one, several, strict=True):
        assert_close(first, second)
    counts = {"empirical": list(SIZES), "sampled": list(SIZES)}
    assert worlds[world][0]["even"]["counts"] == worlds[1][0]["even"]["counts"] == counts


@pytest.mark.parametrize("world", [2, 3])
def test_figures_before_the_repair_and_the_selection_do_not_depend_on_the_number_of_processes(worlds, world):
    for scenario in ("even", "few", "streamed"):
        one, several = worlds[1][0][scenario], worlds[world][0][scenario]
        assert several["num_fisher_examples"] == one["num_fisher_examples"]
        assert several["indices"].keys() == one["indices"].keys()
        assert all(torch.equal(indices, several["indices"][name]) for name, indices in one["indices"].items())
        for stage in ("before", "after_reset"):
            assert several["stages"][stage] == pytest.approx(one["stages"][stage], abs=1e-6)


@pytest.mark.parametrize("world", [2, 3])
def test_all_processes_end_with_the_same_weights_and_figures(worlds, world, folder):
    for scenario in ("even", "few", "streamed"):
        first, *others = (result[scenario] for result in worlds[world])
        saved = AutoModelForImageClassification.from_pretrained(folder / str(world) / scenario)
        for other in [*others, {"weights": parameters_and_buffers(saved), "stages": first["stages"]}]:
            assert other["stages"] == first["stages"]
            assert other.get("relearning", first["relearning"]) == first["relearning"]
            assert all(torch.equal(value, other["weights"][name]) for name, value in first["weights"].items())


@pytest.mark.parametrize("world", [2, 3])
def test_a_repair_by_several_processes_is_that_of_one_with_as_large_batches(worlds, world):
    several, one = worlds[world][0]["even"], worlds[1][0]["together"][world]
    for name, value in one["weights"].items():
        assert (several["weights"][name] - value).abs().max() < 1e-3, name
    assert several["stages"]["after_repair"] == pytest.approx(one["stages"]["after_repair"], rel=1e-3)


@pytest.mark.parametrize("world", [2, 3])
def test_a_penalty_and_an_order_by_losses_of_several_processes_are_those_of_one_with_as_large_batches(worlds, world):
    first, *others = (result["penalised"] for result in worlds[world])
    one = worlds[1][0]["penalised"][world]
    for name, value in one["weights"].items():
        assert all(torch.equal(first["weights"][name], other["weights"][name]) for other in others)
        assert (first["weights"][name] - value).abs().max() < 1e-3, name


def test_a_penalty_on_a_sharded_model_is_that_on_a_whole_one(worlds):
    first, second = (result["sharded"]["changes"] for result in worlds[2])
    one = worlds[1][0]["sharded"]["changes"]
    for weight, changes in one.items():
        for name, change in changes.items():
            assert torch.equal(first[weight][name], second[weight][name])
            assert (first[weight][name] - change).norm() <= 1e-5 * change.norm(), name
    free, held = (torch.cat([change.flatten() for change in changes.values()]) for changes in one.values())
    assert (held - free).norm() > 1e-3 * free.norm()


@pytest.mark.parametrize("world", [2, 3])
def test_relearning_starts_from_the_cleaned_model_in_any_number_of_processes(worlds, world):
    result = worlds[world][0]["even"]
    assert list(result["relearning"]) == ["forget", "few_forget"]
    for found in result["relearning"].values():
        assert found["steps"] == (0, 1, 2, 3)
        (curve,) = found["curves"].values()
        assert curve[0] == result["stages"]["after_repair"]["forget accuracy"]


def test_a_sharded_model_is_cleaned_as_a_whole_one_is(worlds, folder):
    one, (first, second) = worlds[1][0]["sharded"], (result["sharded"] for result in worlds[2])
    for several in (first, second):
        assert several["num_fisher_examples"] == one["num_fisher_examples"] == {"forget": 3, "retain": 21}
        assert_close(one["retain"], several["retain"])
        assert several["indices"].keys() == one["indices"].keys()
        assert all(torch.equal(indices, several["indices"][name]) for name, indices in one["indices"].items())
        assert several["integrity"] == one["integrity"]
        assert several["model_class"] == "LlamaForCausalLM"
        assert several["stages"] == first["stages"]
        assert several["plane"] == first["plane"]
        assert len(several["refusals"]) == 2
        assert all("LlamaForCausalLM is sharded over several processes" in message for message in several["refusals"])
        assert several["trials"] == first["trials"]
        for (num_tried, figures), trial in zip(one["trials"], several["trials"], strict=True):
            assert trial == (num_tried, pytest.approx(figures, rel=1e-5))
        for stage, figures in one["stages"].items():
            assert several["stages"][stage] == pytest.approx(figures, rel=1e-5)
    saved = AutoModelForCausalLM.from_pretrained(folder / "2" / "sharded").state_dict()
    for name, value in one["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        assert torch.equal(first["weights"][name], saved[name])
        assert (first["weights"][name] - value).abs().max() < 1e-5, name


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_a_selection_by_trials_does_not_depend_on_the_number_of_processes(worlds, kind):
    one, *several = (
        (result if kind == "whole" else result["sharded"])["by_trials"] for world in (1, 2) for result in worlds[world]
    )
    assert one["search"]["chosen"] is not None and one.get("unchanged", True)
    for other in several:
        assert other["search"] == several[0]["search"] and other.get("unchanged", True)
        assert other["indices"].keys() == one["indices"].keys()
        assert all(torch.equal(indices, other["indices"][name]) for name, indices in one["indices"].items())
        assert other["search"]["chosen"] == one["search"]["chosen"]
        for expected, trial in zip(one["search"]["trials"], other["search"]["trials"], strict=True):
            assert trial == expected | {"gamma": pytest.approx(expected["gamma"], rel=1e-5)}


def test_the_callback_keeps_the_fisher_of_all_training_data(worlds):
    for results in worlds.values():
        for result in results:
            kept = result["kept"]
            assert kept["count"] == 43 and kept["is_fresh"]
            assert_close(kept["sums"], kept["alone"])


def test_streams_give_what_their_rows_give(worlds):
    for world in WORLDS:
        result = worlds[world][0]
        assert_close(result["even"]["fishers"]["empirical"][1], result["streamed"]["retain"])


def test_only_the_main_process_writes_and_only_a_result_is_left(worlds, folder):
    for world in WORLDS:
        output = folder / str(world) / "even"
        assert sorted(path.name for path in output.iterdir()) == [
            "config.json",
            "forget_commitment.json",
            "model.safetensors",
            "report.json",
        ]
        assert UnlearningReport.load(output / "report.json").stages.keys() >= {"control_after_repair"}
        streamed = folder / str(world) / "streamed"
        assert not list(streamed.glob("_*")) and not list(streamed.glob(".*"))
