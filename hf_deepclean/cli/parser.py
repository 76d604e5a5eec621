# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The parser of the recipes and of `hf-deepclean`: dataclasses, filled from a YAML file and the command line."""

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments


# The options of TrainingArguments that `--help` shows, in its order; `--help_all` shows the others too.
REPAIR_OPTIONS = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "bf16",
    "use_cpu",
    "seed",
)

# Help texts that are about the repair, in place of those of TrainingArguments.
_REPAIR_HELP = {
    "output_dir": "New or empty folder for the cleaned model and its report; nothing is overwritten.",
    "num_train_epochs": "Passes over the retain data in the repair; 0 for no repair.",
    "max_steps": "Number of optimizer steps of the repair; above 0 it replaces the number of epochs.",
    "learning_rate": (
        "Peak learning rate of the repair: about five times that of the model's training, because only the reset "
        "weights are trained."
    ),
    "per_device_train_batch_size": "Batch size of the repair.",
    "per_device_eval_batch_size": "Batch size of the evaluation.",
    "weight_decay": "Decoupled weight decay of the selected weights.",
    "max_grad_norm": "Maximum norm of the gradients of the selected weights; 0 disables clipping.",
    "seed": "Seed of everything random.",
}
_REPAIR = "repair (of TrainingArguments)"
_OTHER = "other (of TrainingArguments)"


class UnlearningParser(HfArgumentParser):
    """
    Fills dataclasses from a YAML file and the command line.

    The keys of the YAML file are names of options. Its values are parsed like those of the command line, which takes
    precedence. An unknown key or option is an error that names the most similar one, and options cannot be
    abbreviated. `--help` shows the fields of the dataclasses; of [`~transformers.TrainingArguments`] it shows only the
    options that control the repair. `--help_all` shows every option.

    Args:
        dataclass_types (`type` or `Iterable[type]`):
            The dataclasses. A subclass of [`~transformers.TrainingArguments`] needs an `output_dir`, from the command
            line, the file or `set_defaults(output_dir=...)`.
        kwargs:
            Passed to [`~argparse.ArgumentParser`].

    Example:

    ```python
    >>> parser = UnlearningParser((DataArguments, FisherUnlearningConfig))
    >>> data_arguments, config = parser.parse_args_and_config()
    ```
    """

    def __init__(self, dataclass_types: type | Iterable[type], **kwargs: Any) -> None:
        kwargs = {
            "formatter_class": _HelpFormatter,
            "usage": "%(prog)s [--config FILE.yaml] [OPTION ...]",
            "allow_abbrev": False,
        } | kwargs
        self._hidden: dict[argparse.Action, str | None] = {}
        self._names: dict[str, argparse.Action] = {}
        super().__init__(dataclass_types, **kwargs)
        self.add_argument(
            "--config",
            metavar="FILE.yaml",
            help="Values of options; the command line takes precedence.",
        )
        self.add_argument("--help_all", "--help-all", nargs=0, action=_HelpAll, help="Show every option and exit.")
        if self._hidden and self.epilog is None:
            self.epilog = "--help_all also shows the other options of TrainingArguments."

    def parse_args_and_config(self, args: Sequence[str] | None = None) -> tuple[Any, ...]:
        """
        Parses the command line and the file of `--config`.

        `null` in the YAML file leaves an option at its default. Invalid input prints a message to stderr and exits
        with status 2, as [`~argparse.ArgumentParser`] does.

        Args:
            args (`Sequence[str]`, *optional*):
                The command line, by default that of the process.

        Returns:
            `tuple`: One instance of every dataclass, in the order of `dataclass_types`.
        """
        finder = argparse.ArgumentParser(prog=self.prog, usage=self.usage, add_help=False, allow_abbrev=False)
        finder.add_argument("--config")
        found, args = finder.parse_known_args(args)
        if found.config is not None and not {"-h", "--help", "--help_all", "--help-all"} & set(args):
            args = [*self._yaml_arguments(found.config), *args]
        namespace, unknown = self.parse_known_args(args)
        if unknown:
            self.error(self._describe_unknown(unknown))
        if getattr(namespace, "output_dir", "") is None:
            self.error("--output_dir is missing: pass the folder for the result.")
        try:
            return tuple(
                kind(**{item.name: getattr(namespace, item.name) for item in fields(kind) if item.init})
                for kind in self.dataclass_types
            )
        except ValueError as error:
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        """Prints the message without the long usage, and exits with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\nSee `{self.prog} --help`.\n")

    def _add_dataclass_arguments(self, dtype: type) -> None:
        hints = get_type_hints(dtype)
        inherited = {item.name for item in fields(TrainingArguments)} if issubclass(dtype, TrainingArguments) else ()
        groups: dict[str, list[Any]] = {}
        for item in fields(dtype):
            if item.init:
                title = getattr(dtype, "_argument_group_name", None) or _title(dtype)
                if item.name in inherited:
                    title = _REPAIR if item.name in REPAIR_OPTIONS else _OTHER
                groups.setdefault(title, []).append(item)
        for title in sorted(groups, key=lambda title: (title == _OTHER, title == _REPAIR)):
            group = self.add_argument_group(title)
            if title == _REPAIR:
                groups[title].sort(key=lambda item: REPAIR_OPTIONS.index(item.name))
            for item in groups[title]:
                item.type = hints[item.name]
                self._parse_dataclass_field(group, item)
                if title == _REPAIR:
                    action = self._option_string_actions[f"--{item.name}"]
                    action.help = _REPAIR_HELP.get(item.name, action.help)
            for action in group._group_actions:
                self._names.setdefault(action.dest, action)
                if action.nargs == "+":
                    # Allows an empty list.
                    action.nargs = "*"
                if title == _OTHER:
                    self._hidden[action] = action.help
                    action.help = argparse.SUPPRESS

    def _yaml_arguments(self, path: str) -> list[str]:
        """Converts a YAML file to command-line arguments, so that the same rules parse both."""
        try:
            document = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            self.error(f"The file {path} of --config cannot be read: {error.strerror}.")
        except yaml.YAMLError as error:
            self.error(f"The file {path} of --config is not YAML: {error}")
        if document is None:
            return []
        if not isinstance(document, yaml.MappingNode):
            self.error(f"The file {path} of --config must hold lines `option: value`, but holds something else.")
        arguments, seen = [], set()
        for key_node, node in document.value:
            key = str(key_node.value)
            where = f"{path}, line {key_node.start_mark.line + 1}: "
            if key not in self._names:
                self.error(f"{where}there is no option `{key}`{_suggestion(key, self._names)}.")
            if key in seen:
                self.error(f"{where}the option `{key}` is given twice.")
            seen.add(key)
            if node.tag == "tag:yaml.org,2002:null":
                continue
            arguments += self._yaml_value(key, node, where)
        return arguments

    def _yaml_value(self, key: str, node: yaml.Node, where: str) -> list[str]:
        if isinstance(node, yaml.ScalarNode):
            # The type of the option parses the text, because YAML would read 3e-3 as a string and no as a boolean.
            return [f"--{key}={node.value}"]
        if isinstance(node, yaml.MappingNode) and self._takes_mapping(key):
            return [f"--{key}={json.dumps(yaml.safe_load(yaml.serialize(node)))}"]
        takes_list = self._names[key].nargs == "*"
        if isinstance(node, yaml.SequenceNode) and takes_list:
            if all(isinstance(item, yaml.ScalarNode) for item in node.value):
                return [f"--{key}", *(item.value for item in node.value)]
        expected = "one value or a list of values" if takes_list else "one value"
        self.error(f"{where}`{key}` takes {expected}; options are not nested.")

    def _takes_mapping(self, key: str) -> bool:
        return any(key in getattr(kind, "_VALID_DICT_FIELDS", ()) for kind in self.dataclass_types)

    def _describe_unknown(self, unknown: Sequence[str]) -> str:
        options = [argument.partition("=")[0] for argument in unknown if re.match("--?[A-Za-z]", argument)]
        if not options:
            return f"{' '.join(unknown)!r} belongs to no option."
        known = [option for option in self._option_string_actions if option.startswith("--")]
        return " ".join(f"There is no option {option}{_suggestion(option, known)}." for option in options)


class _HelpFormatter(argparse.HelpFormatter):
    """Shows one spelling per option, and omits defaults that are empty."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        # Every option can also be spelled with hyphens.
        option = next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0])
        if action.nargs in (0, "?"):
            return option
        return f"{option} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return "VALUE" if action.choices else getattr(action.type, "__name__", "value").upper()

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if not _has_many_choices(action):
            return super()._metavar_formatter(action, default_metavar)
        return lambda size: (default_metavar,) * size

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if _has_many_choices(action):
            text += f" One of {', '.join(map(str, action.choices))}."
        if action.default in (None, False, "", argparse.SUPPRESS) or action.nargs == 0:
            return text
        return f"{text} (default: {getattr(action.default, 'value', '%(default)s')})"


class _HelpAll(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        for action, text in parser._hidden.items():
            action.help = text
        parser.print_help()
        parser.exit()


def _has_many_choices(action: argparse.Action) -> bool:
    return action.choices is not None and len(",".join(map(str, action.choices))) > 50


def _title(dtype: type) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", dtype.__name__).lower().split()
    return " ".join(word for word in words if word not in ("arguments", "config"))


def _suggestion(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.replace("-", "_") if "_" in name else name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
