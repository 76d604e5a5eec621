# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Fingerprints of objects by their content: functions by code, closure and globals, instances by class and attributes.

They are the same in every process, after a restart and for every `PYTHONHASHSEED`: nothing depends on addresses, line
numbers, or the order of sets and dictionaries. What an installed library defines counts by its name and version.
"""

import abc
import argparse
import datetime
import dis
import enum
import functools
import hashlib
import io
import json
import logging
import random
import re
import sys
import sysconfig
import threading
import time
import types
import typing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import datasets
import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from ..models.fingerprint import weights_fingerprint


_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, np.dtype, PurePath)
# Random states of their own are often drawn from the operating system, and then differ in every process.
_OPAQUE = (np.random.Generator, np.random.RandomState, random.Random)
_OPAQUE += (threading.Thread, types.GeneratorType, io.IOBase)
_NAMED = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
)
_NAMED += (types.MemberDescriptorType, types.ClassMethodDescriptorType, types.MethodWrapperType, np.ufunc)

_RECORDS = (argparse.Namespace, types.SimpleNamespace)
# Installed bases that read no attribute of an instance.
_BASES_WITHOUT_ATTRIBUTES = (object, TrainerCallback, abc.ABC, typing.Generic, typing.Protocol)
# Methods that a run does not call, or that read attributes only to copy or show them.
_METHODS_ASIDE = {
    "__init__",
    "__post_init__",
    "__repr__",
    "__str__",
    "__eq__",
    "__hash__",
    "__replace__",
    "__setattr__",
}
_METHODS_ASIDE |= {"__getstate__", "__setstate__", "__reduce__", "__lt__", "__le__", "__gt__", "__ge__", "__delattr__"}
_WITHOUT_CONTENT = (Trainer, TrainingArguments, Accelerator, logging.Logger, logging.Handler)
_WITHOUT_CONTENT += (type(threading.Lock()), type(threading.RLock()), tqdm)

# What a class holds besides what its author wrote. The fields of a dataclass are in its `__init__`.
_OF_EVERY_CLASS = {
    *("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__"),
    *("__static_attributes__", "__firstlineno__", "__abstractmethods__", "_abc_impl", "__conditional_annotations__"),
    *("__dataclass_fields__", "__dataclass_params__", "__parameters__", "__orig_bases__"),
}

# Where a tokenizer was loaded from, which does not matter, and what calls change.
_OF_EVERY_TOKENIZER = {"name_or_path", "tokenizer_file", "vocab_file", "merges_file", "tokenizer_object"}

_INSTALLED = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


class Fingerprints:
    """
    Makes fingerprints, and notes what it cannot see into.

    Args:
        known (`dict[str, Any]`, *optional*):
            Objects that are compared in another way, by a name for them.

    Attributes:
        opaque (`set[str]`): What could not be compared, such as `"numpy.random.Generator"`.
    """

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self.opaque: set[str] = set()
        self._known = {id(value): name for name, value in (known or {}).items() if value is not None}
        self._found: dict[tuple[int, frozenset[str]], str] = {}
        self._under_way: list[int] = []
        # The names in the code that led to a value. Attributes with other names may hold times and paths.
        self._names: list[frozenset[str]] = [frozenset()]
        # An address stands for a value only as long as the value lives.
        self._alive: list[Any] = []

    def of(self, value: Any) -> str:
        """
        Returns the fingerprint of a value.

        Args:
            value (`Any`):
                The value.

        Returns:
            `str`: 32 hexadecimal digits.
        """
        address, names = id(value), self._names[-1] | _names_in_code_of(value)
        if address in self._known:
            return _digest("known", self._known[address])
        if (address, names) in self._found:
            return self._found[address, names]
        if address in self._under_way:
            return _digest("circle", str(len(self._under_way) - self._under_way.index(address)))
        self._alive.append(value)
        self._under_way.append(address)
        self._names.append(names)
        try:
            found = _digest(*self._parts(value))
        except Exception:
            # Attributes may raise anything, and no run ends for that.
            found = _digest(*self._unseen(value))
        finally:
            self._under_way.pop()
            self._names.pop()
        self._found[address, names] = found
        return found

    def _parts(self, value: Any) -> Iterator[str] | tuple[str, ...]:
        kind = type(value).__name__
        if isinstance(value, enum.Enum):
            return (type(value).__qualname__, value.name)
        if is_clock_reading(value):
            return ("a time of this process",)
        if isinstance(value, _PLAIN):
            return (kind, str(value) if isinstance(value, PurePath) else repr(value))
        if isinstance(value, (list, tuple, deque)) and type(value).__module__ in ("builtins", "collections", "torch"):
            return (kind, *map(self.of, value))
        if isinstance(value, (set, frozenset)):
            return (kind, *sorted(map(self.of, value)))
        if isinstance(value, (dict, types.MappingProxyType)):
            return ("dict", *sorted(self.of(key) + self.of(item) for key, item in value.items()))
        if isinstance(value, _OPAQUE):
            return self._unseen(value)
        for kinds, parts in self._readers():
            if isinstance(value, kinds):
                return parts(value)
        return self._parts_of_instance(value)

    def _readers(self) -> tuple[tuple[Any, Any], ...]:
        """How values of kinds that need care are read, in this order."""
        return (
            (type, self._parts_of_class),
            (types.FunctionType, self._parts_of_function),
            (types.CodeType, self._parts_of_code),
            (types.MethodType, lambda value: ("method", self.of(value.__func__), self.of(value.__self__))),
            (functools.partial, lambda value: ("partial", *map(self.of, (value.func, value.args, value.keywords)))),
            (types.ModuleType, self._parts_of_python_module),
            ((classmethod, staticmethod), lambda value: (type(value).__name__, self.of(value.__func__))),
            (property, lambda value: ("property", *map(self.of, (value.fget, value.fset, value.fdel)))),
            (_NAMED, lambda value: self._parts_of_named(value)),
            (re.Pattern, lambda value: ("pattern", repr(value.pattern), str(value.flags))),
            (torch.Generator, lambda value: ("generator", self.of(value.get_state()))),
            ((torch.Tensor, np.ndarray, np.generic), _parts_of_array),
            (PreTrainedTokenizerBase, self._parts_of_tokenizer),
            (nn.Module, self._parts_of_module),
            ((datasets.Dataset, datasets.IterableDataset), self._unseen),
            # Their settings are compared in another way, or have no effect.
            (_WITHOUT_CONTENT, lambda value: (type(value).__qualname__,)),
        )

    def _parts_of_function(self, function: types.FunctionType) -> Iterator[str]:
        yield from ("function", function.__qualname__)
        if is_installed(function):
            yield from (function.__module__, _version(function.__module__))
        else:
            yield from self._parts_of_code(function.__code__)
            for name in sorted(_global_names(function.__code__) & function.__globals__.keys()):
                yield from (name, self.of(function.__globals__[name]))
        yield from (self.of(function.__defaults__), self.of(function.__kwdefaults__), self.of(vars(function)))
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError:
                yield "empty"

    def _read(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes that code on the way here may read, or all if there was none."""
        names = self._names[-1]
        return {name: value for name, value in attributes.items() if name in names or not names}

    def _parts_of_code(self, code: types.CodeType) -> Iterator[str]:
        yield from (code.co_code.hex(), str(code.co_flags), str(code.co_argcount), str(code.co_kwonlyargcount))
        for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
            yield " ".join(names)
        yield getattr(code, "co_exceptiontable", b"").hex()
        yield from map(self.of, code.co_consts)

    def _parts_of_python_module(self, module: types.ModuleType) -> tuple[str, ...]:
        if is_installed(module):
            return ("module", module.__name__, _version(module.__name__))
        return ("module", self.of(self._read(vars(module))) if self._names[-1] else "")

    def _parts_of_class(self, kind: type) -> Iterator[str]:
        yield from ("class", kind.__qualname__)
        if is_installed(kind):
            yield from (kind.__module__, _version(kind.__module__))
            return
        yield from map(self.of, kind.__bases__)
        for name in sorted(vars(kind).keys() - _OF_EVERY_CLASS):
            yield from (name, self.of(vars(kind)[name]))

    def _parts_of_instance(self, value: Any) -> Iterator[str] | tuple[str, ...]:
        kind = type(value)
        if any(owner.__module__.partition(".")[0] == "evaluate" for owner in kind.__mro__):
            # Its other attributes are paths, times and ids of one process.
            return ("metric", kind.__qualname__, *map(str, (value.name, getattr(value, "config_name", None))))
        if hasattr(value, "__wrapped__"):
            return ("wrapper", self.of(value.__wrapped__))
        state = dict(getattr(value, "__dict__", {}))
        for owner in kind.__mro__:
            slots = vars(owner).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    state[name] = getattr(value, name)
        if not state and is_installed(kind):
            return self._parts_of_pickle(value)
        if isinstance(value, _RECORDS) or not any(map(_reads_attributes, kind.__mro__)):
            state = self._read(state)
        return ("instance", self.of(kind), self.of(state), *self._entries_of(value))

    def _entries_of(self, value: Any) -> Iterable[str]:
        """Of a subclass of a container."""
        if isinstance(value, (list, tuple, deque)):
            return map(self.of, value)
        return ()

    def _parts_of_pickle(self, value: Any) -> tuple[str, ...]:
        """An object that is not written in Python says by how it is pickled what it holds, or it does not."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:
            return self._unseen(value)
        if isinstance(reduced, str):
            return ("name", reduced)
        function, arguments, *state = reduced
        entries = [list(item) if isinstance(item, Iterator) else item for item in state]
        return ("pickle", self.of(type(value)), self.of(function), self.of(arguments), self.of(entries))

    def _parts_of_named(self, value: Any) -> tuple[str, ...]:
        owner = getattr(value, "__self__", None)
        of_owner = "" if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
        name = getattr(value, "__qualname__", value.__name__)
        return ("named", str(getattr(value, "__module__", "")), name, of_owner)

    def _parts_of_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
        yield from ("tokenizer", self.of(type(tokenizer)))
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            yield self.of(tokenizer.get_vocab())
        else:
            # Every call sets its own padding and truncation.
            state = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
            yield json.dumps(state, sort_keys=True)
        settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _OF_EVERY_TOKENIZER}
        yield self.of({name: str(value) for name, value in settings.items()})
        yield self.of([tokenizer.padding_side, tokenizer.truncation_side, tokenizer.model_max_length])
        yield self.of([str(tokenizer.chat_template), tokenizer.special_tokens_map])

    def _parts_of_module(self, module: nn.Module) -> Iterator[str]:
        yield from ("torch module", self.of(type(module)), weights_fingerprint(module))
        for name, child in module.named_modules():
            own = {key: value for key, value in vars(child).items() if not key.startswith("_")}
            yield from (name, self.of(type(child)), self.of(own))

    def _unseen(self, value: Any) -> tuple[str, ...]:
        kind = type(value)
        self.opaque.add(f"{kind.__module__}.{kind.__qualname__}")
        return ("opaque", kind.__module__, kind.__qualname__)


def is_clock_reading(value: Any) -> bool:
    """
    Whether a value is a time at which this process ran, as code notes it that shows how long something takes. Of a
    clock that starts with the machine only long times are recognised, since short ones may be settings.
    """
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    elif type(value) is not float:
        return False
    age = 1 + time.time() - psutil.Process().create_time()
    return any(1000 < now - age <= value <= now for now in (time.time(), time.perf_counter(), time.monotonic()))


def is_installed(value: Any) -> bool:
    """Whether a function, class or module comes from the standard library, an installed library or this package."""
    name = value.__name__ if isinstance(value, types.ModuleType) else str(getattr(value, "__module__", None))
    if name == "__main__":
        return False
    if name.partition(".")[0] == __name__.partition(".")[0] or name in sys.builtin_module_names:
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        # The standard library has frozen modules. What a notebook or `exec` defines is in no module at all.
        return module is not None and name.partition(".")[0] in sys.stdlib_module_names
    path = str(Path(file).resolve())
    return path.startswith(_INSTALLED) or "site-packages" in path or "dist-packages" in path


def _names_in_code_of(value: Any) -> frozenset[str]:
    """Names in the code of a function of the user, or in the methods of an instance of a class of the user."""
    if isinstance(value, types.FunctionType):
        return frozenset() if is_installed(value) else _attribute_names(value.__code__)
    if isinstance(value, (type, types.ModuleType, nn.Module, *_PLAIN)):
        return frozenset()
    methods = [
        getattr(method, "__func__", getattr(method, "fget", method))
        for owner in type(value).__mro__
        if not is_installed(owner)
        for name, method in vars(owner).items()
        if name not in _METHODS_ASIDE
    ]
    return frozenset().union(*(_attribute_names(m.__code__) for m in methods if isinstance(m, types.FunctionType)))


def _reads_attributes(owner: type) -> bool:
    """Whether a class is of a library, whose methods may read any attribute."""
    return is_installed(owner) and owner not in _BASES_WITHOUT_ATTRIBUTES


def _version(module: str | None) -> str:
    return str(getattr(sys.modules.get(str(module).partition(".")[0]), "__version__", ""))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> set[str]:
    return {
        instruction.argval
        for part in _codes(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _attribute_names(code: types.CodeType) -> frozenset[str]:
    return frozenset(name for part in _codes(code) for name in part.co_names)


def _parts_of_array(array: Any) -> tuple[str, ...]:
    if isinstance(array, torch.Tensor):
        values = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return ("tensor", str(array.dtype), str(tuple(array.shape)), hashlib.sha256(values).hexdigest())
    array = np.asarray(array)
    if array.dtype == object:
        return ("array of objects", repr(array.tolist()) if array.size < 100 else str(array.shape))
    return ("array", str(array.dtype), str(array.shape), hashlib.sha256(np.ascontiguousarray(array)).hexdigest())


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)} ".encode() + encoded)
    return digest.hexdigest()
