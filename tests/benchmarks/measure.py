# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures time, memory and error of the methods on one workload, each in a process of its own."""

import copy
import ctypes
import gc
import math
import multiprocessing
import os
import tempfile
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.benchmarks.methods import ENGINE, OWN, PLAIN, REFERENCE, TORCH, VARIANTS, Run, Squares, in_chunks, trainable
from tests.benchmarks.models import WORKLOADS
from tests.benchmarks.peers import PEERS


METHODS = OWN | TORCH | PEERS
# Other methods that take more plain steps than this are timed only twice.
SLOW = 2
# Per round and method. The minimum of few steps is mostly noise.
MIN_STEPS, MIN_SECONDS = 3, 0.2
WRONG = 1e-4
NOISE = 1e-12


def seconds(function: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def anonymous_bytes() -> int:
    """Resident memory without mapped files: the code pages of a library do not count as a method's memory."""
    with open("/proc/self/statm") as statm:
        _, resident, shared = map(int, statm.read().split()[:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def release_freed_memory() -> None:
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def set_malloc(trim_threshold: int, mmap_threshold: int) -> None:
    """Fixes what glibc does with freed memory. By default that depends on the order in which sizes are freed."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        library.mallopt(m_trim_threshold, trim_threshold)
        library.mallopt(m_mmap_threshold, mmap_threshold)


def keep_freed_memory() -> None:
    """For times: the page faults of getting a block from the system again can take longer than the work in it."""
    set_malloc(trim_threshold=2**31 - 1, mmap_threshold=2**25)


def return_freed_memory() -> None:
    """For memory: only memory that is in use is resident."""
    set_malloc(trim_threshold=2**16, mmap_threshold=2**16)


def peak_bytes(function: Callable[[], Any]) -> tuple[Any, int]:
    """Calls `function`; returns its result, and by how much the resident memory grew at most during the call."""
    release_freed_memory()
    start = anonymous_bytes()
    peak, done = start, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(5e-4):
            peak = max(peak, anonymous_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = function()
        peak = max(peak, anonymous_bytes())
    finally:
        done.set()
        sampler.join()
    return result, peak - start


def float64_reference(workload: str) -> Squares:
    model, batch = WORKLOADS[workload].build()
    batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
    return OWN[REFERENCE](model.double(), WORKLOADS[workload].log_likelihood)(batch)


def compare(squares: Squares, expected: Squares) -> dict[str, Any]:
    """
    Computes errors relative to the largest value of each parameter.

    The Fisher of some parameters is zero but for rounding, as for key biases under a softmax. Their largest value is
    noise, so their errors are relative to the largest value of the model.
    """
    largest = max(value.max().item() for value in expected.values())
    errors = {}
    for name in expected.keys() & squares.keys():
        size = expected[name].max().item()
        difference = (squares[name].double() - expected[name]).abs().max().item()
        errors[name] = difference / (size if size > NOISE * largest else largest)
    wrong = sorted(name for name, error in errors.items() if not error <= WRONG)
    missing = sorted(expected.keys() - squares.keys())
    return {"worst_error": max(errors.values(), default=None), "wrong": wrong, "missing": missing}


def describe(workload: str) -> dict[str, Any]:
    model, batch = WORKLOADS[workload].build()
    numel = sum(parameter.numel() for parameter in trainable(model).values())
    shapes = {key: list(value.shape) for key, value in batch.items()}
    return {"weights": numel, "accumulator_bytes": 4 * numel, "parameters": len(trainable(model)), "batch": shapes}


def memory_and_error(workload: str, method: str, reference_file: str) -> dict[str, Any]:
    return_freed_memory()
    model, batch = WORKLOADS[workload].build()
    run = METHODS[method](model, WORKLOADS[workload].log_likelihood)
    run(in_chunks(batch, 2)[0])  # Lazy imports and buffers of the BLAS do not count as the method's memory.
    squares, peak = peak_bytes(partial(run, batch))
    result: dict[str, Any] = {"peak_bytes": peak}
    if method != PLAIN and VARIANTS.get(method, {}).get("fisher_type", "empirical") == "empirical":
        result |= compare(squares, torch.load(reference_file))
    return result


def timings(workload: str, methods: Collection[str], repeats: int) -> dict[str, dict[str, Any]]:
    """
    Times every method for some steps per round, so that a drift of the machine's speed affects all methods alike.

    hf_deepclean runs one pass per round. Its first batch includes the work that is done once per pass; the further
    batches are its steps.
    """
    keep_freed_memory()
    model, batch = WORKLOADS[workload].build()
    log_likelihood = WORKLOADS[workload].log_likelihood
    runs: dict[str, Run] = {}
    for name in methods:
        runs[name] = METHODS[name](copy.deepcopy(model), log_likelihood)
        runs[name](in_chunks(batch, 2)[0])
    plain = seconds(partial(runs[PLAIN], batch))
    num_steps = max(MIN_STEPS, math.ceil(MIN_SECONDS / plain))
    times: dict[str, list[float]] = {name: [] for name in runs}
    first_batches: dict[str, list[float]] = {name: [] for name in runs if name in ENGINE}
    for _ in range(repeats):
        for name, run in runs.items():
            if name in ENGINE:
                starts: list[float] = []
                began = time.perf_counter()
                run(batch, num_batches=num_steps + 2, starts=starts)
                first_batches[name].append(starts[1] - began)
                times[name] += [end - start for start, end in zip(starts[1:], starts[2:], strict=False)]
            elif len(times[name]) < 2 or min(times[name]) < SLOW * plain:
                times[name].append(seconds(partial(run, batch)))
                if times[name][-1] < SLOW * plain:
                    times[name] += [seconds(partial(run, batch)) for _ in range(num_steps - 1)]
    results: dict[str, dict[str, Any]] = {
        name: {"seconds": times[name], "batch_seconds": min(times[name])} for name in runs
    }
    for name, first in first_batches.items():
        results[name] |= {"first_batch_seconds": first, "set_up_seconds": min(first) - min(times[name])}
    return results


def start(num_threads: int) -> None:
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(num_threads)


def isolated(num_threads: int, function: Callable[..., Any], *args: Any) -> Any:
    """Calls `function` in a fresh process, forked from a process that has only done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, initializer=start, initargs=(num_threads,)) as pool:
        return pool.submit(function, *args).result()


def reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"not installed ({error.name})"
    if isinstance(error, BrokenProcessPool):
        return "fails: the process was killed (out of memory?)"
    lines = str(error).strip().splitlines() or [""]
    return textwrap.shorten(f"fails: {type(error).__name__}: {lines[0]}", 120)


def measure(workload: str, methods: Collection[str], repeats: int, num_threads: int, debug: bool) -> dict[str, Any]:
    """Measures one column of the table: describes the workload, and makes a record for every method."""
    run = partial(isolated, num_threads)
    column = run(describe, workload)
    records: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference_file = str(Path(folder, "reference.pt"))
        torch.save(run(float64_reference, workload), reference_file)
        for name in methods:
            try:
                records[name] = run(memory_and_error, workload, name, reference_file)
            except Exception as error:
                if debug:
                    traceback.print_exc()
                records[name] = {"failure": reason(error)}
    measured = run(timings, workload, [name for name in methods if "failure" not in records[name]], repeats)
    for name, times in measured.items():
        records[name] |= times
    return column | {"methods": records}
