# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Measures whole unlearning runs on the CPU phase by phase: processor time and peak memory."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import torch
import transformers
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from hf_deepclean.planning.device import calibrate
from hf_deepclean.planning.job import Job
from hf_deepclean.planning.model_size import ModelSize
from hf_deepclean.runtime.clock import PhaseClock
from tests.benchmarks.measure import (
    anonymous_bytes,
    isolated,
    keep_freed_memory,
    release_freed_memory,
    return_freed_memory,
)


NUM_LABELS = 10
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert() -> nn.Module:
    sizes = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
    return BertForSequenceClassification(BertConfig(vocab_size=8000, num_labels=NUM_LABELS, **sizes, **NO_DROPOUT))


def vit() -> nn.Module:
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
    return ViTForImageClassification(ViTConfig(image_size=64, patch_size=8, num_labels=NUM_LABELS, **sizes))


def large_vit() -> nn.Module:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    return ViTForImageClassification(ViTConfig(image_size=64, patch_size=8, num_labels=NUM_LABELS, **sizes))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 128, "vocab_size": 12000}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "vocab_size": 8000}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=2))


def large_llama() -> nn.Module:
    sizes = {"hidden_size": 640, "num_hidden_layers": 8, "intermediate_size": 1760, "vocab_size": 16000}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=10, num_key_value_heads=5, tie_word_embeddings=True)
    )


def llama_adapter() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        llama(), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            # Not zero, as after training: with B = 0 the gradients of A are zero.
            nn.init.normal_(parameter, std=0.02)
    return model


@dataclass(frozen=True)
class MeasuredRun:
    """
    One run to measure.

    Args:
        make (`Callable`): Builds the model.
        job ([`Job`]): The run as `estimate` describes it.
        images (`bool`): Whether the examples are images; otherwise they are tokens.
        generates (`bool`): Whether the labels are the tokens themselves.
        adapter (`bool`): Whether only an adapter is cleaned.
        calibration (`bool`): Whether constants of `estimate` were fitted to this run.
    """

    make: Callable[[], nn.Module]
    job: Job
    images: bool = False
    generates: bool = False
    adapter: bool = False
    calibration: bool = False

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make()

    def dataset(self, size: int, seed: int, vocab_size: int) -> datasets.Dataset:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, NUM_LABELS, (size,), generator=generator)
        if self.images:
            values = {
                "pixel_values": torch.randn(size, 3, 64, 64, generator=generator).numpy(),
                "labels": labels.numpy(),
            }
            features = datasets.Features(
                {"pixel_values": datasets.Array3D((3, 64, 64), "float32"), "labels": datasets.Value("int64")}
            )
            return datasets.Dataset.from_dict(values, features=features).with_format("torch")
        tokens = torch.randint(2, vocab_size, (size, self.job.tokens_per_example), generator=generator)
        columns = {"input_ids": tokens, "labels": tokens if self.generates else labels}
        return datasets.Dataset.from_dict(columns).with_format("torch")

    def unlearner(self, model: nn.Module, folder: str) -> FisherUnlearner:
        job, vocab_size = self.job, getattr(model.config, "vocab_size", 0)
        splits = {
            f"{split}_dataset": self.dataset(getattr(job, f"num_{split}_examples"), seed, vocab_size)
            for seed, split in enumerate(("forget", "retain", "eval", "unseen"))
        }
        args = FisherUnlearningConfig(
            str(Path(folder, "clean")),
            reset_fraction=job.reset_fraction,
            reset_value=job.reset_value,
            reset_scope="adapter" if self.adapter else "full",
            num_train_epochs=job.num_train_epochs,
            per_device_fisher_batch_size=job.fisher_batch_size,
            per_device_train_batch_size=job.train_batch_size,
            per_device_eval_batch_size=job.eval_batch_size,
            learning_rate=1e-4,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        return FisherUnlearner(model, args, **splits)


def _job(tokens: int, forget: int, retain: int, **changes: Any) -> Job:
    sizes = {"num_forget_examples": forget, "num_retain_examples": retain, "num_eval_examples": forget}
    batches = {"fisher_batch_size": 16, "train_batch_size": 16, "eval_batch_size": 16}
    defaults: dict[str, Any] = sizes | batches | {"num_unseen_examples": forget, "reset_fraction": 0.1}
    return Job(tokens_per_example=tokens, **(defaults | changes))


LANGUAGE = {"generates": True}
RUNS = {
    "BERT": MeasuredRun(bert, _job(128, 16, 64, reset_value="zero"), calibration=True),
    "Llama": MeasuredRun(llama, _job(128, 16, 64), **LANGUAGE, calibration=True),
    "ViT": MeasuredRun(vit, _job(65, 32, 128, reset_value="zero"), images=True),
    "ViT, 21 M": MeasuredRun(large_vit, _job(65, 16, 64, reset_value="zero"), images=True),
    "GPT-2": MeasuredRun(gpt2, _job(96, 16, 48, train_batch_size=8), **LANGUAGE),
    "Llama, 50 M": MeasuredRun(large_llama, _job(64, 16, 32, fisher_batch_size=8), **LANGUAGE),
    "Llama, adapter": MeasuredRun(llama_adapter, _job(128, 16, 64), **LANGUAGE, adapter=True),
}


class PeakMemory:
    """Samples the anonymous memory of this process, and keeps the largest growth since the start for every phase."""

    def __init__(self) -> None:
        release_freed_memory()
        self.start = anonymous_bytes()
        self.phase = "other"
        self.peaks: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._done.set()
        self._thread.join()

    @contextmanager
    def during(self, phase: str) -> Any:
        release_freed_memory()
        before, self.phase = self.phase, phase
        yield
        self.phase = before

    def _sample(self) -> None:
        while not self._done.wait(1e-3):
            phase = self.phase
            self.peaks[phase] = max(self.peaks.get(phase, 0), anonymous_bytes() - self.start)


class WatchedClock(PhaseClock):
    """
    Notes the processor time of every phase, and tells the memory sampler which phase runs.

    On one thread of an idle machine, processor time equals wall-clock time. Other programs do not count in it.

    Args:
        seconds (`dict[str, float]`): Wall-clock seconds by phase, as for [`PhaseClock`].
        processor_seconds (`dict[str, float]`): Processor seconds by phase, to add to.
        memory (`PeakMemory`, *optional*): The sampler.
    """

    def __init__(
        self, seconds: dict[str, float], processor_seconds: dict[str, float], memory: PeakMemory | None
    ) -> None:
        super().__init__(seconds)
        self.processor_seconds = processor_seconds
        self.memory = memory

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.process_time()
        with nullcontext() if self.memory is None else self.memory.during(name), super().phase(name):
            yield
        self.processor_seconds[name] = self.processor_seconds.get(name, 0.0) + time.process_time() - start


def unlearn_watched(unlearner: FisherUnlearner, memory: PeakMemory | None = None) -> dict[str, float]:
    """Runs an unlearner with a watched clock. Returns the processor seconds of every phase."""
    processor_seconds: dict[str, float] = {}

    def clock(seconds: dict[str, float]) -> WatchedClock:
        return WatchedClock(seconds, processor_seconds, memory)

    with patch("hf_deepclean.unlearner.PhaseClock", clock):
        unlearner.unlearn()
    return processor_seconds


def warm_up(run: MeasuredRun) -> None:
    """Runs a handful of examples first, so that imports and one-time allocations are not measured."""
    few = {f"num_{split}_examples": 2 for split in ("forget", "retain", "eval", "unseen")}
    with tempfile.TemporaryDirectory() as folder:
        replace(run, job=replace(run.job, **few)).unlearner(run.build(), folder).unlearn()


def measure_seconds(name: str) -> dict[str, float]:
    """Measures the processor time of every phase, and the speed of matrix products before and after the run."""
    keep_freed_memory()
    run = RUNS[name]
    warm_up(run)
    model = run.build()
    size, tokens = ModelSize.of_model(model), run.job.train_batch_size * run.job.tokens_per_example
    rates = [calibrate(size, tokens, clock=time.process_time)]
    with tempfile.TemporaryDirectory() as folder:
        unlearner = run.unlearner(model, folder)
        start = time.process_time()
        processor_seconds = unlearn_watched(unlearner)
        total = time.process_time() - start
    rates.append(calibrate(size, tokens, clock=time.process_time))
    return processor_seconds | {"total": total, "flops_per_second": sum(rates) / 2}


def measure_memory(name: str) -> dict[str, int]:
    return_freed_memory()
    run = RUNS[name]
    warm_up(run)
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        unlearn_watched(run.unlearner(run.build(), folder), memory)
    return memory.peaks


def measure_run(name: str) -> dict[str, Any]:
    """Measures seconds and bytes of every phase on one thread, each in a process of its own."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    run = partial(isolated, 1)
    return {"seconds": run(measure_seconds, name), "bytes": run(measure_memory, name)}
