# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Checks of a model that is sharded over two processes, each against the same model in one process.

`test_sharded_checks.py` launches this file once, with `torch.distributed.run`. It writes the outcome of every check to
the file named on the command line.
"""

import copy
import datetime
import json
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Trainer,
    TrainingArguments,
)

from hf_deepclean import (
    FisherDiagonal,
    FreezeGuard,
    SparseAdamW,
    accumulate_fisher_diagonal,
    accumulate_fisher_diagonals,
    next_token_log_likelihood,
    parameters_in_scope,
    reset_weights,
    select_weights,
)
from hf_deepclean.models.contexts import only_trainable
from hf_deepclean.reset.weights import read_weights, write_weights
from hf_deepclean.runtime.sharded_models import named_parameters
from hf_deepclean.runtime.shards import full_tensor, local_part
from hf_deepclean.selection.fisher_plane import fisher_plane
from tests import tiny
from tests.fisher.test_accumulate import Halved, Hidden, gaussian, worst_relative_difference


LAYERS = ("LlamaDecoderLayer", "MixtralDecoderLayer", "BertLayer", "ViTLayer")
# No axis is divisible by two in every tensor, so that shards are uneven.
SIZES = {"vocab_size": 51, "hidden_size": 15, "intermediate_size": 21, "num_hidden_layers": 2, "head_dim": 6}
SIZES |= {"num_attention_heads": 3, "num_key_value_heads": 1}


def rank():
    return torch.distributed.get_rank()


def llama(tied, dtype=torch.float64, **sizes):
    torch.manual_seed(0)
    return tiny.randomized(LlamaForCausalLM(LlamaConfig(**SIZES | sizes, tie_word_embeddings=tied)), dtype)


def tokens(size, length=7):
    ids = torch.randint(1, 51, (size, length), generator=torch.Generator().manual_seed(3))
    ids[:, 2] = ids[:, 1]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def sharded(model):
    model, mesh = copy.deepcopy(model), init_device_mesh("cpu", (2,))
    for module in list(model.modules()):
        if type(module).__name__ in LAYERS:
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def cut(batch, *ends):
    """Cuts a batch into batches of the examples from each position in `ends` to the next."""
    return [
        {key: value[first:end] for key, value in batch.items()} for first, end in zip(ends, ends[1:], strict=False)
    ]


def mine(batch, first, second):
    """The batches of this process: cut at `first` in the first process, and at `second` in the second."""
    return cut(batch, *(first if rank() == 0 else second))


def equals_one_process(model, batch, batches, **kwargs):
    expected = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 4), **kwargs)
    split = sharded(model)
    fisher = accumulate_fisher_diagonal(split, batches, **kwargs)
    assert fisher.num_examples == expected.num_examples == len(batch["labels"])
    assert fisher.fallback_parameters == expected.fallback_parameters
    sums = {name: full_tensor(total) for name, total in fisher.sums.items()}
    assert worst_relative_difference(sums, expected.sums) <= 1e-12
    for name, parameter in named_parameters(split).items():
        assert local_part(parameter)[0].shape == local_part(fisher.sums[name])[0].shape
        assert parameter.requires_grad and parameter.grad is None
    return fisher


def check_fisher_of_a_causal_model_with_a_tied_head():
    batch = tokens(11)
    equals_one_process(llama(True), batch, mine(batch, (0, 4, 6), (6, 9, 10, 11)))


def check_fisher_of_a_causal_model_with_its_own_head_and_layers_computed_again():
    batch, model = tokens(11), llama(False)
    model.gradient_checkpointing_enable()
    equals_one_process(model, batch, mine(batch, (0, 1), (1, 6, 11)))


def check_fisher_over_all_classes_with_a_process_that_has_no_example():
    batch = tiny.text_batch(5)
    equals_one_process(
        tiny.randomized(tiny.bert()), batch, [] if rank() == 0 else cut(batch, 0, 3, 5), fisher_type="expected"
    )


def check_fisher_without_self_check_and_with_sums_on_a_device():
    batch = tiny.image_batch()
    fisher = equals_one_process(
        tiny.randomized(tiny.vit()),
        batch,
        mine(batch, (0, 8), (8, 11)),
        self_check=False,
        accumulator_device="cpu",
    )
    assert all(local_part(total)[0].device == torch.device("cpu") for total in fisher.sums.values())


def check_fisher_of_parameters_that_take_the_one_example_path():
    batch = {"x": torch.randn(7, 3).double(), "labels": torch.randn(7).double()}
    for self_check in (True, False):
        fisher = equals_one_process(
            Hidden(Halved(5)).double(),
            batch,
            mine(batch, (0, 2), (2, 5, 7)),
            log_likelihood_func=gaussian,
            self_check=self_check,
        )
        assert list(fisher.fallback_parameters) == ["scale.weight"]


def check_fisher_of_experts_of_which_the_processes_use_others():
    torch.manual_seed(0)
    config = MixtralConfig(**SIZES, num_local_experts=6, num_experts_per_tok=1)
    batch = tokens(7, length=3)
    equals_one_process(
        tiny.randomized(MixtralForCausalLM(config)),
        batch,
        mine(batch, (0, 1, 2), (2, 7)),
        log_likelihood_func=next_token_log_likelihood,
    )


def check_a_value_that_is_not_finite_stops_all_processes():
    batch = tiny.image_batch()
    batch["pixel_values"][10] = float("nan")
    with pytest.raises(ValueError, match="log-likelihood of the example at position 2 is nan"):
        accumulate_fisher_diagonal(sharded(tiny.randomized(tiny.vit())), mine(batch, (0, 8), (8, 11)))


def check_groups_of_which_a_process_has_no_example_and_their_selection():
    model, batch = llama(False), tokens(11)
    batch["forget"] = torch.tensor([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    expected = accumulate_fisher_diagonals(model, tiny.in_batches(batch, 4), group_column="forget")
    fishers = accumulate_fisher_diagonals(
        sharded(model), mine(batch, (0, 4, 6), (6, 9, 10, 11)), group_column="forget"
    )
    assert {group: fisher.num_examples for group, fisher in fishers.items()} == {0: 9, 1: 2}
    for arguments in ({"gamma": 1.0}, {"reset_fraction": 0.03}, {"reset_fraction": 0.5}, {}):
        ours = select_weights(fishers[1], fishers[0], **arguments)
        theirs = select_weights(expected[1], expected[0], **arguments)
        assert ours.num_weights == theirs.num_weights
        assert ours.num_infinite_ratios == theirs.num_infinite_ratios
        assert ours.indices.keys() == theirs.indices.keys()
        assert all(torch.equal(ours.indices[name], theirs.indices[name]) for name in ours.indices)


def check_selection_with_ties_across_the_shards():
    mesh, generator = init_device_mesh("cpu", (2,)), torch.Generator().manual_seed(0)
    shapes = {"a": (7, 13), "b": (1,), "c": (5, 2, 2), "d": (53,)}
    whole_sums = [
        {name: torch.randint(0, 4, shape, generator=generator).float() for name, shape in shapes.items()}
        for _ in range(2)
    ]
    forget, retain = (FisherDiagonal(sums, 3) for sums in whole_sums)
    split = [
        FisherDiagonal({name: distribute_tensor(total, mesh, [Shard(0)]) for name, total in sums.items()}, 3)
        for sums in whole_sums
    ]
    fractions = [{"reset_fraction": fraction} for fraction in (0.02, 0.05, 0.1, 0.3, 0.5, 1.0)]
    for arguments in [*fractions, {"gamma": 1.0}]:
        ours, theirs = select_weights(*split, **arguments), select_weights(forget, retain, **arguments)
        assert (ours.gamma, ours.num_infinite_ratios) == (theirs.gamma, theirs.num_infinite_ratios)
        assert ours.indices.keys() == theirs.indices.keys()
        assert all(torch.equal(ours.indices[name], theirs.indices[name]) for name in ours.indices)
        plane = fisher_plane(*split, ours)
        assert plane == fisher_plane(forget, retain, theirs)
        assert plane.num_selected == ours.num_selected
    messages = []
    for pair in (split, (forget, retain)):
        with pytest.raises(ValueError, match="No weight was selected: no ratio") as error:
            select_weights(*pair)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def some_weights(model):
    generator = torch.Generator().manual_seed(5)
    forget, retain = (
        FisherDiagonal({name: torch.rand(p.shape, generator=generator) for name, p in model.named_parameters()}, 1)
        for _ in range(2)
    )
    return select_weights(forget, retain, reset_fraction=0.1)


def check_reset_and_repair_of_the_same_weights():
    for tied in (True, False):
        model, batch = llama(tied), tokens(8)
        split, selection = sharded(model), some_weights(model)
        with torch.no_grad():
            split(**batch)  # which leaves the outermost layer whole
        guard, own_guard = FreezeGuard(split, selection), FreezeGuard(model, selection)
        assert guard.checksum == own_guard.checksum
        assert guard.num_frozen_weights == own_guard.num_frozen_weights
        before = read_weights(split, selection)
        assert all(torch.equal(before[name], value) for name, value in read_weights(model, selection).items())
        pretrained = llama(tied)
        with torch.no_grad():
            for parameter in pretrained.parameters():
                parameter *= 1.1
        for arguments in (
            {"reset_value": "zero"},
            {"reset_value": "pretrained", "pretrained_model": pretrained},
            {"reset_value": "init", "seed": 1},
        ):
            reset_weights(split, selection, **arguments)
            reset_weights(model, selection, **arguments)
            for name, parameter in named_parameters(split).items():
                assert torch.equal(full_tensor(parameter), model.get_parameter(name))
        guard.verify(split)
        norms = []
        for one, own in ((model, [0, 1]), (split, [rank()])):
            chosen = [p for name, p in named_parameters(one).items() if name in selection.indices]
            with only_trainable(one, chosen):
                optimizer = SparseAdamW(
                    named_parameters(one).items(), selection.indices, lr=1e-2, weight_decay=0.1, max_grad_norm=0.5
                )
                for step in range(4):
                    optimizer.zero_grad()
                    examples = [2 * step + index for index in own]
                    one(**{key: value[examples] for key, value in batch.items()}).loss.backward()
                    optimizer.step()
                norms.append(optimizer.last_grad_norm)
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)
        num_entries = sum(len(state["exp_avg"]) for state in optimizer.state_dict()["state"].values())
        assert num_entries < selection.num_selected
        guard.verify(split)
        for name, parameter in named_parameters(split).items():
            assert torch.allclose(full_tensor(parameter), model.get_parameter(name), rtol=1e-10, atol=1e-12)
        write_weights(split, selection, before)
        assert all(torch.equal(before[name], value) for name, value in read_weights(split, selection).items())
        split.model.embed_tokens.weight.requires_grad_(False)
        assert len(parameters_in_scope(split)) == len(list(split.parameters())) - 1


def sharded_by_transformers(model):
    from transformers.distributed import DistributedConfig

    folder = [tempfile.mkdtemp() if rank() == 0 else None]
    torch.distributed.broadcast_object_list(folder)
    if rank() == 0:
        model.save_pretrained(folder[0])
    torch.distributed.barrier()
    split = LlamaForCausalLM.from_pretrained(folder[0], distributed_config=DistributedConfig(fsdp_size=2))
    return split, folder[0]


def check_tied_tables_that_transformers_shard_unevenly_are_refused():
    with pytest.raises(ValueError, match="The 51 rows of the embeddings"):
        accumulate_fisher_diagonal(sharded_by_transformers(llama(True))[0], [tokens(2)])


def check_a_model_that_transformers_shard_as_they_load_it_through_the_trainer():
    for tied in (True, False):
        model = llama(tied, torch.float32, vocab_size=52)
        split, folder = sharded_by_transformers(model)
        batch = tokens(12)
        for self_check in (True, False):
            expected = accumulate_fisher_diagonal(model, tiny.in_batches(batch, 4), self_check=self_check)
            fisher = accumulate_fisher_diagonal(
                split, mine(batch, (0, 5), (5, 8, 12)), self_check=self_check, parameters=parameters_in_scope(split)
            )
            assert fisher.num_examples == 12
            sums = {name: full_tensor(total) for name, total in fisher.sums.items()}
            assert worst_relative_difference(sums, expected.sums) <= 1e-6
        selection = some_weights(model)
        guard = FreezeGuard(split, selection)
        trained = []
        rows = [{key: value[i] for key, value in batch.items()} for i in range(12)]
        for one in (model, split):
            reset_weights(one, selection, "init")
            chosen = {name: p for name, p in named_parameters(one).items() if name in selection.indices}
            with only_trainable(one, list(chosen.values())):
                optimizer = SparseAdamW(chosen.items(), selection.indices, lr=1e-3, max_grad_norm=1.0)
                if one is split:
                    arguments = TrainingArguments(
                        f"{folder}/trainer",
                        use_cpu=True,
                        per_device_train_batch_size=2,
                        max_steps=3,
                        max_grad_norm=0,
                        lr_scheduler_type="constant",
                        save_strategy="no",
                        report_to=[],
                        disable_tqdm=True,
                        train_sampling_strategy="sequential",
                    )
                    assert arguments.world_size == 2
                    Trainer(split, arguments, train_dataset=rows, optimizers=(optimizer, None)).train()
                else:
                    for step in range(3):
                        optimizer.zero_grad()
                        one(**{key: value[4 * step : 4 * step + 4] for key, value in batch.items()}).loss.backward()
                        optimizer.step()
            trained.append({name: full_tensor(p).clone() for name, p in named_parameters(one).items()})
        guard.verify(split)
        for name, value in trained[0].items():
            assert torch.allclose(trained[1][name], value, atol=1e-6)
        split.save_pretrained(f"{folder}/saved")
        torch.distributed.barrier()
        saved = dict(LlamaForCausalLM.from_pretrained(f"{folder}/saved").named_parameters())
        assert all(torch.equal(saved[name], value) for name, value in trained[1].items())


CHECKS = [name for name in list(globals()) if name.startswith("check_")]


def main(path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    outcomes = {}
    for name in CHECKS:
        torch.manual_seed(0)
        try:
            globals()[name]()
            outcomes[name] = "passed"
        except Exception:
            outcomes[name] = f"process {rank()}: {traceback.format_exc()}"
        if outcomes[name] != "passed" or rank() == 0:
            Path(path).write_text(json.dumps(outcomes))
        # Exit, because the other process may be waiting for this one in the middle of the check.
        if outcomes[name] != "passed":
            sys.exit(1)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
