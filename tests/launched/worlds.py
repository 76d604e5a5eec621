# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Runs the same scenarios in one, two and three processes, and saves the results of every process: `worlds.py FOLDER`.

The processes are forked after the imports, which take longer than some scenarios.
"""

import dataclasses
import sys
from pathlib import Path

import datasets
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.distributed import DistributedConfig

from hf_deepclean import (
    FisherCallback,
    FisherDiagonal,
    FisherUnlearner,
    FisherUnlearningConfig,
    accumulate_fisher_diagonal,
)
from hf_deepclean.data.process_loaders import EpochLoader, ProcessBatchSampler
from hf_deepclean.runtime.processes import gather_objects, is_main_process, num_processes, process_index
from hf_deepclean.runtime.sharded_models import named_parameters
from hf_deepclean.runtime.shards import full_tensor
from tests import tiny
from tests.launched.launch import fork


# The numbers of processes.
WORLDS = (1, 2, 3)
# Forget and retain examples, which no number of processes and no batch size divides.
SIZES = (23, 61)


def model():
    torch.manual_seed(0)
    return tiny.randomized(tiny.vit(num_labels=10, num_hidden_layers=1), torch.float32)


def config(output, **kwargs):
    defaults = {
        "reset_fraction": 0.2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "per_device_fisher_batch_size": 5,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return FisherUnlearningConfig(str(output), **(defaults | kwargs))


def splits(num_forget, num_retain, num_unseen=17):
    digits, ends = tiny.digits(), [num_forget, num_forget + num_retain, num_forget + num_retain + num_unseen]
    return {
        "forget_dataset": digits.select(range(ends[0])),
        "retain_dataset": digits.select(range(*ends[:2])),
        "unseen_dataset": digits.select(range(*ends[1:])),
    }


def result_of(report, unlearner):
    return {
        "stages": {name: stage.figures() for name, stage in report.stages.items()},
        "relearning": {data: dataclasses.asdict(found) for data, found in report.relearning_by_data().items()},
        "num_fisher_examples": report.num_fisher_examples,
        "indices": dict(unlearner.selection.indices),
        "weights": tiny.parameters_and_buffers(unlearner.model),
    }


def even(folder):
    """A run with the further measurements that several processes can take, after Fishers of two kinds."""
    further = {"relearning_steps": 3, "relearning_data": ["forget", "few_forget"], "quantization_bits": [4]}
    args = config(folder / "even", random_mask_control=True, **further)
    unlearner = FisherUnlearner(model(), args, **splits(*SIZES))
    fishers = {
        kind: [unlearner.compute_fisher(data) for data in (unlearner.forget_dataset, unlearner.retain_dataset)]
        for kind in ("empirical", "sampled")
        for unlearner.args.fisher_type in [kind]
    }
    unlearner.args.fisher_type = "empirical"
    return result_of(unlearner.unlearn(), unlearner) | {
        "fishers": {kind: [fisher.sums for fisher in pair] for kind, pair in fishers.items()},
        "counts": {kind: [fisher.num_examples for fisher in pair] for kind, pair in fishers.items()},
    }


def few(folder):
    """Fewer examples than processes, in every role."""
    unlearner = FisherUnlearner(model(), config(folder / "few"), **splits(1, 2, 1))
    return result_of(unlearner.unlearn(), unlearner)


def streamed(folder):
    """The data of `even`, streamed in three shards."""
    data = {name: dataset.to_iterable_dataset(num_shards=3) for name, dataset in splits(*SIZES).items()}
    unlearner = FisherUnlearner(model(), config(folder / "streamed", max_steps=4, save_strategy="steps"), **data)
    sums = unlearner.compute_fisher(unlearner.retain_dataset).sums
    return result_of(unlearner.unlearn(), unlearner) | {"retain": sums}


def by_trials(folder):
    """A selection by trials on a model that knows its rows."""
    arguments = {"reset_fraction": None, "num_selection_trials": 3, "num_train_epochs": 0}
    unlearner = FisherUnlearner(tiny.trained(), config(folder / "by-trials", **arguments), **splits(*SIZES))
    before = tiny.parameters_and_buffers(unlearner.model)
    pair = [unlearner.compute_fisher(data) for data in (unlearner.forget_dataset, unlearner.retain_dataset)]
    selection, after = unlearner.select_weights(*pair), tiny.parameters_and_buffers(unlearner.model)
    return {
        "indices": dict(selection.indices),
        "search": dataclasses.asdict(unlearner.search),
        "unchanged": all(torch.equal(value, before[name]) for name, value in after.items()),
    }


class Together(FisherUnlearner):
    """An unlearner in one process whose repair reads in a step the rows that several processes read together."""

    def get_train_dataloader(self):
        sampler = ProcessBatchSampler(
            self._get_train_sampler(self.train_dataset), self.args.train_batch_size, self.args.seed, 0, 1
        )
        return EpochLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)


def together(folder, world):
    args = config(folder / f"together-{world}", per_device_train_batch_size=8 * world)
    unlearner = Together(model(), args, **splits(*SIZES))
    return result_of(unlearner.unlearn(), unlearner)


def penalised(folder, world=1):
    """
    A repair that is held to unseen data, of which there are fewer than processes times the batch size, and whose
    second epoch reads the rows with the largest losses.
    """
    arguments = {"reset_fraction": None, "num_selection_trials": 2, "hard_example_share": 0.5}
    args = config(folder / f"penalised-{world}", **arguments, per_device_train_batch_size=8 * world)
    unlearner = FisherUnlearner(tiny.trained(), args, **splits(*SIZES))
    result = result_of(unlearner.unlearn(), unlearner)
    assert unlearner.plan.make_penalty is not None
    return result


def kept(folder):
    """The Fisher that a callback keeps, and the Fisher of all rows that one process computes after the training."""
    rows = tiny.digits().select(range(43))
    args = TrainingArguments(str(folder / "trained"), num_train_epochs=1, use_cpu=True, report_to="none")
    trainer = Trainer(model(), args, train_dataset=rows)
    trainer.add_callback(FisherCallback(trainer, per_device_fisher_batch_size=4))
    trainer.train()
    fisher = FisherDiagonal.from_pretrained(folder / "trained" / "_fisher")
    trained = trainer.accelerator.unwrap_model(trainer.model)
    alone = accumulate_fisher_diagonal(trained, tiny.in_batches(rows[:], 4))
    return {
        "sums": fisher.sums,
        "alone": alone.sums,
        "count": fisher.num_examples,
        "is_fresh": fisher.is_fresh(trained),
    }


def learn(model, tokens):
    """Trains the model on the tokens, because a selection by trials needs a model that knows something."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def sharded(folder):
    """Runs on a language model, which is sharded if there are several processes."""
    torch.manual_seed(0)
    config_of_model = LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(1, 30, (29, 6)).tolist()]
    rows, unseen = rows[:24], datasets.Dataset.from_list(rows[24:])
    arguments = {"reset_fraction": 0.1, "per_device_train_batch_size": 8 // num_processes(), "max_steps": 3}
    # There is an odd number of forget and of retain batches, so two processes do not share them evenly.
    arguments |= {"per_device_fisher_batch_size": 3, "per_device_eval_batch_size": 3}
    args = config(folder / "sharded", **arguments, gamma_sweep=[1.0, 5.0], num_selection_trials=3)
    source = folder / "original"
    if is_main_process():
        learn(LlamaForCausalLM(config_of_model), torch.tensor([row["labels"] for row in rows])).save_pretrained(source)
    gather_objects(None)
    split = {} if num_processes() == 1 else {"distributed_config": DistributedConfig(fsdp_size=num_processes())}
    data = {
        "forget_dataset": datasets.Dataset.from_list(rows[:3]),
        "retain_dataset": datasets.Dataset.from_list(rows[3:]),
    }
    refusals = []
    for measurement in ({"relearning_steps": 1}, {"quantization_bits": [4]}) if split else ():
        with pytest.raises(ValueError, match=f"`{next(iter(measurement))}`") as refusal:
            refused = config(folder / "refused", **measurement)
            FisherUnlearner(LlamaForCausalLM.from_pretrained(source, **split), refused, **data)
        refusals.append(str(refusal.value))
    unlearner = (FisherUnlearner if split else Together)(
        LlamaForCausalLM.from_pretrained(source, **split), args, **data
    )
    retain = unlearner.compute_fisher(unlearner.retain_dataset)
    forget = unlearner.compute_fisher(unlearner.forget_dataset)
    by_rule, unlearner.args.selection = unlearner.args.selection, "auto"
    tried = unlearner.select_weights(forget, retain)
    search = unlearner.search
    unlearner.args.selection = by_rule
    report = unlearner.unlearn()
    arguments |= {"reset_fraction": None, "num_selection_trials": 1, "learning_rate": 1e-3}
    # With a large epsilon the steps follow the size of the gradients, not only their signs.
    changes = {}
    for weight in (0.0, 10.0):
        held = (FisherUnlearner if split else Together)(
            LlamaForCausalLM.from_pretrained(source, **split),
            config(folder / f"held-{weight}", **arguments, forget_penalty=weight, adam_epsilon=1e-3),
            **data,
            unseen_dataset=unseen,
        )
        before = {name: full_tensor(p).clone() for name, p in named_parameters(held.model).items()}
        held.select_weights(forget, retain)
        held.reset_weights()
        held.train()
        changes[weight] = {
            name: full_tensor(p).clone() - before[name] for name, p in named_parameters(held.model).items()
        }
    return {
        "changes": changes,
        "stages": {name: stage.figures() for name, stage in report.stages.items()},
        "by_trials": {"indices": dict(tried.indices), "search": dataclasses.asdict(search)},
        "num_fisher_examples": report.num_fisher_examples,
        "integrity": dataclasses.asdict(report.integrity),
        "indices": dict(unlearner.selection.indices),
        "retain": {name: full_tensor(total) for name, total in retain.sums.items()},
        "weights": {name: full_tensor(p).clone() for name, p in named_parameters(unlearner.model).items()},
        "model_class": report.model_class,
        "refusals": refusals,
        "plane": dataclasses.asdict(report.selection.plane),
        "trials": [(trial.num_selected, trial.result.figures()) for trial in report.gamma_trials],
    }


def run_scenarios(folder):
    folder.mkdir(exist_ok=True)
    results = {scenario.__name__: scenario(folder) for scenario in (even, few, streamed, kept)}
    if num_processes() > 1:
        results["penalised"] = penalised(folder)
    if num_processes() < 3:
        results["sharded"] = sharded(folder)
        results["by_trials"] = by_trials(folder)
    if num_processes() == 1:
        results["together"] = {world: together(folder, world) for world in (2, 3)}
        results["penalised"] = {world: penalised(folder, world) for world in (2, 3)}
    torch.save(results, folder / f"{process_index()}-of-{num_processes()}.pt")


if __name__ == "__main__":
    tiny.digits()
    for world in WORLDS:
        fork(world, run_scenarios, Path(sys.argv[1], str(world)))
