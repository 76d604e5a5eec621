# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Compares the Fisher pass with its one-example definition on every architecture of transformers, and writes the page.

```bash
python -m tests.architectures.coverage --output tests/architectures/README.md
```
"""

import argparse
import dataclasses
import json
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from torch import nn

from hf_deepclean import accumulate_fisher_diagonal
from hf_deepclean.data.batches import num_examples, split_labels
from hf_deepclean.fisher.engine.calls import Call
from hf_deepclean.fisher.engine.reference import add_reference_squares_
from hf_deepclean.fisher.engine.rules.any_op import any_op
from hf_deepclean.models.likelihood import Likelihood, span_log_likelihood
from hf_deepclean.models.rows import select_examples
from tests.architectures.batches import batch, likelihood_for
from tests.architectures.entries import HEADS, Entry, entries
from tests.architectures.tiny_models import build


TOLERANCE, NOISE = 1e-9, 1e-24

INTRODUCTION = """This folder compares the Fisher pass with its definition, one example at a time, on every
architecture of transformers' auto mappings. The models are tiny, with random weights in float64. Exact means that
every entry of every parameter agrees to {tolerance:g} of the largest entry of its tensor. `make coverage` writes this
page, that is `python -m tests.architectures.coverage --output tests/architectures/README.md`, with transformers
{version}."""

LEGEND = """## In this folder

| module | |
|---|---|
| `entries.py` | lists the architectures and their heads |
| `tiny_configs.py` | shrinks the configuration of an architecture by the names of its fields |
| `overrides.py` | settings of architectures that the names do not give |
| `tiny_models.py` | builds a model from such a configuration |
| `batches.py` | makes a batch for it, and scores its outputs |
| `coverage.py` | compares the pass with its definition, and writes this page |
| `test_coverage.py` | checks one architecture of each kind, and all of them in `make test-slow` |

Add an architecture: a new release of transformers adds it to the table by itself. If it is not built, give it an entry
in `overrides.py`. If it brings a new kind of computation, add it to `KINDS` in `test_coverage.py`.

## By architecture

- **Exact by rules**: no parameter took the one-example path, on which the whole model runs for every example. Ops
  without a closed form run again by themselves for every example; they are named.
- **On the length to which they are padded**: the result of a row really changes with padding, so rows run alone and
  without it, here and in the definition. Convolutions and pools read neighbours (CANINE, ConvBERT, Funnel,
  MobileBERT), landmarks and hashes read all positions (Nyströmformer, YOSO), and heads read the last position
  (RoFormer's multiple choice; XLNet, which is padded at the left in use and then runs by rules). CPM-Ant and
  ProphetNet's decoder do not mask padding at the right. With a collator that pads to one length all run by rules.
- **Not built**: followed by the message of transformers. For some models of images and text the cause is only that no
  tiny configuration or batch was written for them here.
- **No reference**: a backward pass through the model in eval mode fails without this library too.
- The number of parameters reached is given if it is less than half of all parameters. The batch of most models of
  images and text, or of sound and text, holds text only."""


@dataclasses.dataclass
class Result:
    """
    The result of one architecture and head.

    Args:
        status (`str`):
            `"exact"`, `"different"`, `"engine failed"`, `"not built"`, or `"no reference"` if a backward pass through
            the model in eval mode fails without this library too.
        reason (`str`):
            Why the status is not `"exact"`.
        worst (`float`):
            Largest difference of an entry, relative to the largest entry of its tensor.
        reached (`int`):
            Number of parameters whose Fisher information is not zero, of `num_parameters`.
        op_by_op (`list[str]`):
            Ops without a closed form. They ran again for every example.
        one_example (`dict[str, str]`):
            Parameters on the one-example path, with the reason.
        warned (`bool`):
            Whether the self-check warned.
    """

    head: str
    model_type: str
    class_name: str
    status: str = "not built"
    reason: str = ""
    worst: float = 0.0
    reached: int = 0
    num_parameters: int = 0
    op_by_op: list[str] = dataclasses.field(default_factory=list)
    one_example: dict[str, str] = dataclasses.field(default_factory=dict)
    warned: bool = False
    seconds: float = 0.0

    @property
    def built(self) -> bool:
        return self.status not in ("not built", "no reference")

    @property
    def exact(self) -> bool:
        return self.status == "exact"

    @property
    def closed(self) -> bool:
        """Whether the result is exact by closed forms alone."""
        return self.exact and not self.op_by_op and not self.one_example


class _Warnings(logging.Handler):
    """Remembers whether a logger warned."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = True


def compare(entry: Entry) -> Result:
    """Builds an architecture and compares the Fisher pass over one batch with its definition."""
    result, started = Result(*entry), time.perf_counter()
    try:
        model = build(entry)
        examples, likelihood = batch(entry, model), likelihood_for(entry)
        _check_independent(model, examples, likelihood)
        result.status = "no reference"
        parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point() and p.numel()}
        reference = {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}
        add_reference_squares_(reference, model, examples, parameters, likelihood=likelihood)
        result.status = "engine failed"
        _compare_pass(result, model, examples, likelihood, parameters, reference)
    except Exception as error:  # noqa: BLE001
        result.reason = f"{type(error).__name__}: {_first_line(error)}"
    result.seconds = round(time.perf_counter() - started, 2)
    return result


def _check_independent(model: nn.Module, examples: dict[str, Any], likelihood: Likelihood) -> None:
    """Refuses a batch without a finite log-likelihood per example, because nothing could be compared."""
    scores = []
    with torch.no_grad():
        for indices in [range(num_examples(examples)), *([i] for i in range(num_examples(examples)))]:
            inputs, labels = split_labels(select_examples(model, examples, indices))
            scores.append(likelihood(inputs, model(**inputs), labels))
    together, alone = scores[0], torch.cat(scores[1:])
    if not together.isfinite().all():
        raise ValueError("the log-likelihoods are not finite")
    if not torch.allclose(alone, together, rtol=1e-9, atol=1e-9):
        raise ValueError("in this model an example's output depends on the other examples of its batch")


def _compare_pass(
    result: Result,
    model: Any,
    examples: dict[str, Any],
    likelihood: Likelihood,
    parameters: dict[str, Any],
    reference: dict[str, torch.Tensor],
) -> None:
    handler, logger = _Warnings(), logging.getLogger("hf_deepclean.fisher")
    logger.addHandler(handler)
    ops = set()

    def recorded(call: Call) -> Any:
        contact = any_op(call)
        if contact is not None:
            ops.add(getattr(call.func, "__name__", str(call.func)))
        return contact

    try:
        with mock.patch("hf_deepclean.fisher.engine.taps.any_op", recorded):
            fisher = accumulate_fisher_diagonal(
                model, [examples], log_likelihood_func=likelihood.func or span_log_likelihood, parameters=parameters
            )
    finally:
        logger.removeHandler(handler)
    result.op_by_op = sorted(ops)
    result.warned = handler.seen
    result.one_example = dict(sorted(fisher.fallback_parameters.items()))
    result.num_parameters = len(parameters)
    if any("padded" in reason for reason in fisher.fallback_parameters.values()):
        reference = {name: torch.zeros_like(total) for name, total in reference.items()}
        add_reference_squares_(reference, model, examples, parameters, likelihood=likelihood, own_padding=True)
    for name, expected in reference.items():
        largest = expected.max().item()
        difference = (fisher.sums[name] - expected).abs().max().item()
        result.reached += largest > NOISE
        if not difference <= max(TOLERANCE * largest, NOISE):
            result.reason = result.reason or f"first in {name}"
        if difference > NOISE:
            result.worst = max(result.worst, difference / largest if largest else float("inf"))
    result.status = "different" if result.reason else "exact"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    # The validators of configurations write the reason on the second line.
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:300]


def page(results: Iterable[Result]) -> str:
    """Writes the results as a Markdown page. Equal results give equal pages."""
    results = sorted(results, key=lambda r: (r.model_type, list(HEADS).index(r.head), r.class_name))
    heads = [head for head in HEADS if any(r.head == head for r in results)]
    built = [r for r in results if r.built]
    lines = [
        "# Architectures",
        "",
        *INTRODUCTION.format(tolerance=TOLERANCE, version=transformers.__version__).splitlines(),
        "",
        f"{len(results)} entries, {len(built)} built, {sum(r.exact for r in built)} exact, "
        f"{sum(r.exact and not r.one_example for r in built)} exact with no parameter on the one-example path, "
        f"{sum(r.closed for r in built)} of these by closed forms alone.",
        "",
        "| head | entries | built | exact | without the one-example path | by closed forms alone |",
        "|---|---|---|---|---|---|",
    ]
    for head in heads:
        of_head = [r for r in results if r.head == head]
        batched = sum(r.exact and not r.one_example for r in of_head)
        lines.append(
            f"| {head} | {len(of_head)} | {sum(r.built for r in of_head)} | {sum(r.exact for r in of_head)} "
            f"| {batched} | {sum(r.closed for r in of_head)} |"
        )
    lines += ["", *LEGEND.splitlines(), "", "| architecture | heads | result |", "|---|---|---|"]
    for model_type, of_type in _grouped(results, lambda r: r.model_type).items():
        for outcome, same in _grouped(of_type, _outcome).items():
            lines.append(f"| {model_type} | {', '.join(dict.fromkeys(r.head for r in same))} | {outcome} |")
    return "\n".join(lines) + "\n"


def _outcome(result: Result) -> str:
    if not result.built:
        return _cell(f"{result.status}: {result.reason}")
    if not result.exact:
        return _cell(f"**{result.status}**: {result.reason}")
    few = 2 * result.reached < result.num_parameters
    partly = f" ({result.reached} of {result.num_parameters} parameters reached)" if few else ""
    if not result.one_example:
        return _cell(f"exact by rules{', op by op for ' * bool(result.op_by_op)}{', '.join(result.op_by_op)}{partly}")
    reasons = sorted({reason.replace(result.class_name, "the model") for reason in result.one_example.values()})
    number = "all" if len(result.one_example) == result.num_parameters else len(result.one_example)
    return _cell(f"exact{partly}, {number} parameters one example at a time: {'; '.join(reasons)}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _grouped(results: Iterable[Result], key: Any) -> dict[str, list[Result]]:
    groups = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return dict(groups)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), help="run only these heads")
    parser.add_argument("--model_types", nargs="+", help="run only these architectures")
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    parser.add_argument("--json", type=Path, help="file to write all results to")
    parser.add_argument("--shard", default="0/1", help="i/n: run every n-th entry, starting with the i-th")
    options = parser.parse_args(arguments)
    index, count = map(int, options.shard.split("/"))
    chosen = [
        entry
        for entry in entries()
        if (not options.heads or entry.head in options.heads)
        and (not options.model_types or entry.model_type in options.model_types)
    ]
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results = []
    for entry in chosen[index::count]:
        results.append(result := compare(entry))
        note = result.reason or (f"{len(result.one_example)} one-example" if result.one_example else "")
        print(f"{result.status:16} {result.seconds:6.2f}s {entry.head}: {entry.model_type} {note}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1) + "\n")
    if options.output:
        options.output.write_text(page(results))
    built = [r for r in results if r.built]
    print(
        f"{len(results)} entries, {len(built)} built, {sum(r.exact for r in built)} exact, "
        f"{sum(r.exact and not r.one_example for r in built)} exact and batched, "
        f"{sum(r.seconds for r in results):.0f} s"
    )


if __name__ == "__main__":
    main()
