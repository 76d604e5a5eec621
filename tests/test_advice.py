# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Advice in messages can be followed: what it names exists, and a user who does what it says gets on."""

import ast
import copy
import importlib
import inspect
import re
from pathlib import Path

import huggingface_hub
import peft
import pytest
import torch
import transformers
from datasets import Dataset, concatenate_datasets
from peft import PeftModel
from torch import nn

import hf_deepclean
from hf_deepclean import FisherUnlearningConfig, parameters_in_scope
from hf_deepclean.cli.commands import main
from tests import tiny
from tests.models.adapters import examples
from tests.unlearner import runs


PACKAGE = Path(hf_deepclean.__file__).parent

# Whose arguments and methods messages may name.
LIBRARIES = [
    transformers.TrainingArguments,
    transformers.Seq2SeqTrainingArguments,
    transformers.Trainer,
    transformers.EvalPrediction,
    transformers.PreTrainedModel.resize_token_embeddings,
    peft.LoraConfig,
    PeftModel.from_pretrained,
    PeftModel.save_pretrained,
    nn.BatchNorm2d,
    huggingface_hub.HfApi.create_commit,
]
# Arguments that libraries take as keywords of any name, or that belong to libraries that are not installed.
OF_KEYWORDS = {"use_fast", "trust_remote_code", "device_map", "distributed_config", "num_labels", "fsdp_size"}
OF_KEYWORDS |= {"loss_type", "problem_type", "persistent"}


def literals(tree):
    """All texts of a module but docstrings. What is filled in is a zero character."""
    documented = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    docstrings = {node.body[0].value for node in documented if isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            docstrings |= set(node.values)
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.value


def code_in_messages():
    """Everything between backticks in messages, with the module it is in."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for text in literals(ast.parse(path.read_text(encoding="utf-8"))):
            for code in re.findall(r"(?<!`)`([^`\n ]+(?: [^`\n]+)?)`(?!`)", text):
                found.setdefault(code, path.relative_to(PACKAGE).as_posix())
    return found


def known_arguments():
    """Names of all arguments, fields and methods of the package, and those of the libraries above."""
    known = set(OF_KEYWORDS)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arguments):
                known |= {argument.arg for argument in [*node.posonlyargs, *node.args, *node.kwonlyargs]}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
    for library in LIBRARIES:
        known |= set(inspect.signature(library).parameters)
    return known


CODE = code_in_messages()


def test_messages_were_found():
    assert len(CODE) > 200 and "max_steps" in CODE and "unlearner.push_to_hub(repo_id)" in CODE


# A statement, not an option, and the line of a filter.
NO_OPTIONS = {"model = model.merge_and_unload()", "age != None and age > 30"}
COMMANDS_OF_OTHERS = ("pip ", "hf ", "hf-", "accelerate ", "torchrun ", "lambda ", "kill ")


def test_every_option_that_a_message_gives_a_value_exists():
    known = known_arguments()
    pattern = r"(?:--)?([a-z_]+)(?:=(?!=)|(?<=[a-z]) (?=\S+$))"
    options = {code: match[1] for code in CODE if (match := re.match(pattern, code))}
    unknown = {code for code, name in options.items() if name not in known and not code.startswith(COMMANDS_OF_OTHERS)}
    assert unknown <= NO_OPTIONS and len(options) > 40


METHODS = sorted({match[0] for code in CODE if (match := re.match(r"(?:hf_deepclean|[A-Z]\w+)\.[a-z_][\w.]*", code))})


@pytest.mark.parametrize("code", METHODS)
def test_every_method_that_a_message_names_exists(code):
    owner, *names = code.split(".")
    places = (hf_deepclean, transformers, peft, huggingface_hub, importlib.import_module("datasets"), torch.utils.data)
    found = next((getattr(place, owner) for place in places if hasattr(place, owner)), None)
    found = hf_deepclean if owner == "hf_deepclean" else found
    for name in names:
        assert hasattr(found, name), code
        found = getattr(found, name)


CALLED = r"\b(?:model|unlearner|tokenizer|dataset)\.([a-z_]\w*)\("
MODEL_METHODS = sorted({match[1] for code in CODE if (match := re.search(CALLED, code))})


@pytest.mark.parametrize("name", MODEL_METHODS)
def test_every_method_of_a_model_or_data_set_that_a_message_names_exists(name):
    assert any(
        hasattr(owner, name)
        for owner in (transformers.PreTrainedModel, PeftModel, hf_deepclean.FisherUnlearner, Dataset)
    ) or hasattr(peft.tuners.lora.LoraModel, name)


COMMANDS = sorted({match[1] for code in CODE if (match := re.match(r"hf-deepclean ([a-z-]+)", code))})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_a_message_names_exists(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and capsys.readouterr().out


# Each case: what the message advises, a mistake, and what a user does who follows the advice. Both get the arguments
# of an unlearner for tiny models.


def digits():
    return tiny.digits()


def stream_of(data):
    return data | {"retain_dataset": data["retain_dataset"].to_iterable_dataset()}


def frozen_adapter():
    model = examples.adapted()
    for name, parameter in model.named_parameters():
        if "lora" in name or "modules_to_save" in name:
            parameter.requires_grad_(False)
    return model


def merged_adapter():
    model = examples.adapted()
    model.merge_adapter()
    return model


def two_adapters():
    model = examples.adapted("llama")
    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    model.base_model.set_adapter(["default", "second"])
    return model


def call(method, *args):
    """A change of the model: calls one of its methods."""

    def change(case):
        getattr(case["model"], method)(*args)

    return change


def use(**values):
    """A change of the arguments."""
    return lambda case: case["options"].update(values)


def use_data(**values):
    """A change of the data sets."""
    return lambda case: case["data"].update({name: make() for name, make in values.items()})


def leave_out(name):
    """A change of the arguments: one that is not given."""
    return lambda case: case["options"].pop(name)


CASES = {
    "rows of both sets": (
        "Remove them from the retain set",
        [use_data(retain_dataset=lambda: digits().select(range(20, 120)))],
        [use_data(retain_dataset=lambda: digits().select(range(24, 120)))],
    ),
    "forget rows as unseen data": (
        "Remove them from the unseen data",
        [use_data(unseen_dataset=lambda: digits().select([*range(10), *range(120, 160)]))],
        [use_data(unseen_dataset=lambda: digits().select(range(120, 160)))],
    ),
    "retain rows as unseen data": (
        "Pass data that were never trained on",
        [use_data(unseen_dataset=lambda: digits().select(range(100, 130)))],
        [use_data(unseen_dataset=lambda: digits().select(range(120, 160)))],
    ),
    "an empty data set": (
        "Pass at least one example",
        [use_data(forget_dataset=lambda: digits().select([]))],
        [use_data(forget_dataset=lambda: digits().select([0]))],
    ),
    "too few classes": (
        "load the model with the right `num_labels`",
        [lambda case: case.update(model=tiny.vit(num_labels=4))],
        [lambda case: case.update(model=tiny.vit(num_labels=10))],
    ),
    "a stream to keep": (
        "Set `max_steps`",
        [lambda case: case.update(data=stream_of(case["data"])), use(max_steps=-1)],
        [use(max_steps=2)],
    ),
    "hard examples of a stream": (
        "Leave it out",
        [lambda case: case.update(data=stream_of(case["data"])), use(max_steps=2, reset_fraction=None)]
        + [use(selection="auto", hard_example_share=0.5)],
        [leave_out("hard_example_share")],
    ),
    "another optimizer": (
        "Leave `optim` at its default",
        [use(optim="adafactor")],
        [leave_out("optim")],
    ),
    "a push at the end": (
        "Leave it out",
        [use(push_to_hub=True)],
        [leave_out("push_to_hub")],
    ),
    "a misspelt module": (
        "Its modules are named like",
        [use(target_modules=["clasifier"])],
        [use(target_modules=["classifier"])],
    ),
    "a frozen model": (
        r"call `model\.requires_grad_\(True\)`",
        [call("requires_grad_", False)],
        [call("requires_grad_", True)],
    ),
    "a scope without an adapter": (
        "or use `reset_scope='full'`",
        [use(reset_scope="adapter")],
        [use(reset_scope="full")],
    ),
    "a frozen adapter": (
        r"call `model\.set_requires_grad\('default'\)`",
        [lambda case: case.update(model=frozen_adapter(), data=examples.splits()), use(reset_scope="adapter")],
        [call("set_requires_grad", "default")],
    ),
    "a merged adapter": (
        r"Call `model\.unmerge_adapter\(\)` first",
        [lambda case: case.update(model=merged_adapter(), data=examples.splits()), use(reset_scope="adapter")],
        [call("unmerge_adapter")],
    ),
    "an adapter that is switched off": (
        r"Call `model\.enable_adapter_layers\(\)` first",
        [lambda case: case.update(model=examples.adapted(), data=examples.splits()), use(reset_scope="adapter")]
        + [call("disable_adapter_layers")],
        [call("enable_adapter_layers")],
    ),
    "two active adapters": (
        r"Activate it with `model\.set_adapter\(name\)`",
        [lambda case: case.update(model=two_adapters(), data=examples.splits("llama")), use(reset_scope="adapter")],
        [call("set_adapter", "default"), call("delete_adapter", "second")],
    ),
}


def make(case, folder):
    return runs.unlearner_for(folder, case["model"], case["data"], **case["options"])


@pytest.mark.parametrize("name", CASES)
def test_a_user_who_does_what_the_message_says_gets_on(name, tmp_path):
    advice, mistake, remedy = CASES[name]
    case = {"model": runs.vit(), "data": runs.splits(), "options": {"reset_fraction": 0.05, "num_train_epochs": 1}}
    for change in mistake:
        change(case)
    with pytest.raises((ValueError, TypeError), match=advice):
        make(case, tmp_path / "clean")
    for change in remedy:
        change(case)
    unlearner = make(case, tmp_path / "clean")
    assert parameters_in_scope(
        unlearner.model,
        unlearner.args.target_modules,
        unlearner.args.exclude_modules,
        reset_scope=unlearner.args.reset_scope,
    )


def test_equal_rows_of_different_people_get_on_in_one_set(tmp_path):
    twice = concatenate_datasets([digits().select(range(24)), digits().select([30])])
    splits = runs.splits(forget_dataset=twice, retain_dataset=digits().select([*range(24, 30), *range(31, 120)]))
    with pytest.raises(ValueError, match="Equal rows that belong to different people must all be in the same set"):
        runs.unlearner_for(tmp_path / "a", data=runs.splits(forget_dataset=twice))
    assert len(runs.unlearner_for(tmp_path / "a", data=splits).forget_dataset) == 25


def test_a_phase_that_comes_too_early_works_after_the_one_that_the_message_names(tmp_path):
    unlearner = runs.unlearner_for(tmp_path / "a", num_train_epochs=1)
    with pytest.raises(RuntimeError, match="Call `select_weights` first"):
        unlearner.reset_weights()
    unlearner.select_weights(*runs.fishers(unlearner))
    unlearner.reset_weights()
    unlearner.train()
    unlearner.freeze_guard.verify(unlearner.model)


def test_the_values_that_a_refused_choice_names_are_accepted(tmp_path):
    for name in ("fisher_type", "selection", "target", "reset_scope", "reset_value", "forget_disclosure"):
        with pytest.raises(ValueError, match=f"`{name}` is 'none of these'") as error:
            FisherUnlearningConfig(str(tmp_path / "a"), **{name: "none of these"})
        named = re.findall(r"'(\w+)'", str(error.value).split("must be")[1])
        assert named
        for value in set(named) - {"pretrained", "description", "gamma", "reset_fraction"}:
            options = {"selection": "auto"} if name == "target" else {}
            FisherUnlearningConfig(str(tmp_path / "a"), **{name: value}, **options)
