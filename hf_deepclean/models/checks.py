# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Bad input is refused here, before any heavy work."""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow.types import is_large_list, is_list
from torch import nn
from transformers import TrainingArguments

from ..config import FisherUnlearningConfig
from ..data.batches import split_labels
from ..data.loaders import is_stream
from ..evaluation.quantization import quantized
from ..fisher.diagonal import FisherDiagonal
from ..run_state import STATE_FOLDER, is_of_a_run
from ..runtime.processes import check_launch, is_main_process
from ..runtime.shards import is_sharded
from .adapters.parameters import check_adapter, is_adapted, is_adapter_path
from .fingerprint import row_digests


logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("labels", "label", "label_ids")


def check_output_directory(path: str | os.PathLike[str], *, resuming: bool) -> None:
    """
    Refuses an output directory that holds anything, except what an interrupted run has left when it is to be resumed.

    Raises:
        `FileExistsError`: If something is there.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"The output directory {path} is a file. Choose another `output_dir`.")
    found = sorted(
        entry.name
        for entry in path.iterdir()
        if not (resuming and (re.fullmatch(r"checkpoint-\d+|runs", entry.name) or is_of_a_run(path, entry.name)))
    )
    if not found:
        return
    remedy = "Nothing is ever overwritten: choose another `output_dir`, or move what is there."
    if (path / STATE_FOLDER).exists():
        remedy = f"Continue that run with `resume_from_checkpoint=True`, or choose another `output_dir`. {remedy}"
    elif resuming and (path / "report.json").exists():
        remedy = f"The run there is finished, and there is nothing to continue. {remedy}"
    raise FileExistsError(
        f"The output directory {path} already holds {found[0]}"
        f"{f' and {len(found) - 1} more' if len(found) > 1 else ''}. {remedy}"
    )


def check_devices(args: TrainingArguments, model: Any) -> None:
    """
    Refuses processes that do not know of each other, and a process that averages gradients over several devices.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The arguments of the training.
        model (`str` or [`~transformers.PreTrainedModel`]):
            The model, which may lie on several devices.

    Raises:
        `RuntimeError`: As [`processes.check_launch`].
        `ValueError`: If one process sees several devices and the model is not spread over them.
    """
    check_launch(args.world_size)
    if args.n_gpu > 1 and getattr(model, "hf_device_map", None) is None:
        raise ValueError(
            f"One process sees {args.n_gpu} devices and would share every batch out over them, with averaged "
            "gradients. Launch a process per device (`accelerate launch --multi_gpu`), make one device visible "
            "(CUDA_VISIBLE_DEVICES), or load the model over them (`device_map`)."
        )


def check_scope_of_model(model: str | os.PathLike[str] | nn.Module, reset_scope: str) -> None:
    """
    Refuses a model that does not fit the scope, before it is loaded.

    Raises:
        `ValueError`: If it has an adapter and all weights are in scope, or none and an adapter is in scope.
    """
    adapted = is_adapter_path(model) or is_adapted(model)
    described = repr(str(model)) if isinstance(model, (str, os.PathLike)) else f"a {type(model).__name__}"
    if adapted and reset_scope == "full":
        raise ValueError(
            f"The model is {described}, an adapter on a base, and `reset_scope='full'` would reset weights of both. "
            "Set `reset_scope='adapter'` to clean the adapter alone, or merge it into the base first "
            "(`merge_and_unload`) to clean the whole model."
        )
    if reset_scope == "adapter" and not adapted:
        raise ValueError(
            f"`reset_scope='adapter'` cleans the adapter of a `PeftModel`, and the model is {described}, which has "
            "none. Pass `PeftModel.from_pretrained(base, path, is_trainable=True)` (an adapter that transformers "
            "loaded into the base by itself is no `PeftModel`) or the folder with its `adapter_config.json`, or use "
            "`reset_scope='full'`."
        )


def check_model(model: nn.Module, reset_scope: str = "full", reset_value: str = "zero") -> None:
    """
    Refuses a model whose weights cannot be reset one by one.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        reset_scope (`str`, *optional*, defaults to `"full"`):
            With `"adapter"` only the adapter's weights have to be resettable; the frozen base may be quantised.
        reset_value (`str`, *optional*, defaults to `"zero"`):
            What an adapter's weights are to be reset to.

    Raises:
        `ValueError`: If weights are quantised, not there (meta device), or carry adapters that are not in scope or
            cannot be reset.
    """
    if reset_scope == "adapter":
        check_adapter(model, reset_value)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            f"This {type(model).__name__} carries adapters, and a reset of single adapter weights needs rules of its "
            "own. Merge them into the model first (`merge_and_unload`)."
        )
    if reset_scope == "full" and (
        getattr(model, "is_quantized", False) or getattr(model, "quantization_method", None) is not None
    ):
        raise ValueError(
            f"The weights of this {type(model).__name__} are quantised: they have no gradients, and one stored number "
            "stands for several weights. Unlearn the model in float32 or bfloat16 and quantise the result."
        )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"The parameter {name} is on the meta device, so it has no values. Load the model's weights, for "
                "example with `from_pretrained` and no `device_map` that offloads to disk."
            )
        frozen = reset_scope == "adapter" and not parameter.requires_grad
        if not frozen and (not parameter.is_floating_point() or parameter.itemsize < 2):
            raise ValueError(
                f"The parameter {name} has dtype {parameter.dtype}: quantised weights have no gradients. Unlearn the "
                "model in float32 or bfloat16 and quantise the result."
            )


def check_loss(trainer: Any, log_likelihood_func: Any | None) -> None:
    """
    Refuses a trainer with a loss of its own, unless the likelihood that it stands for is given.

    Raises:
        `ValueError`: If there is a `compute_loss_func` and no `log_likelihood_func`.
    """
    if trainer.compute_loss_func is not None and log_likelihood_func is None:
        raise ValueError(
            "This trainer has a `compute_loss_func`, a mean over the batch from which no per-example Fisher "
            "information follows. Pass the `log_likelihood_func(outputs, labels)` it is the negative mean of."
        )


def check_kept_fisher(
    fisher: FisherDiagonal,
    model: nn.Module,
    parameters: Mapping[str, torch.Tensor],
    args: FisherUnlearningConfig,
    forget_dataset: Any,
    retain_dataset: Any,
) -> None:
    """
    Refuses a kept Fisher that the retain Fisher cannot be subtracted from.

    Args:
        fisher ([`FisherDiagonal`]):
            The kept Fisher.
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        parameters (`dict[str, torch.nn.Parameter]`):
            Those in scope.
        args ([`FisherUnlearningConfig`]):
            The arguments of the run.
        forget_dataset, retain_dataset ([`~datasets.Dataset`], map-style or iterable):
            The data, which together are those of the kept Fisher.

    Raises:
        `ValueError`: If the diagonal is stale, of other parameters, of another estimator or of other data; if the
            model is sharded, or only a part of the examples is to be used.
    """
    if any(map(is_sharded, parameters.values())):
        raise ValueError(
            "`kept_fisher` holds whole parameters, and those of this model are sharded. Leave it out, so that the "
            "retain Fisher is computed by a pass over the shards."
        )
    if args.fisher_max_examples is not None:
        raise ValueError(
            f"`fisher_max_examples={args.fisher_max_examples}` computes the forget Fisher on a part of the rows, and "
            "what is subtracted from `kept_fisher` has to be that of all of them. Leave one of the two out."
        )
    fisher.check_fits(model, parameters, args.fisher_type)
    if is_stream(forget_dataset) or is_stream(retain_dataset):
        return
    num_rows = len(forget_dataset) + len(retain_dataset)
    if num_rows != fisher.num_examples:
        raise ValueError(
            f"`kept_fisher` is that of {fisher.num_examples:,} examples, and `forget_dataset` and `retain_dataset` "
            f"have {num_rows:,} rows together. They must be the whole training set that it was computed on: if rows "
            "were forgotten before, the weights have changed and it is of no use any more."
        )


def check_requests(requests: Mapping[str, Sequence[int]] | None, forget_dataset: Any) -> None:
    """
    Refuses requests that have no rows, or rows that are not there.

    Raises:
        `ValueError`: If a request is empty, a row is not one of the forget data, or these are a stream.
    """
    if not requests:
        return
    if is_stream(forget_dataset):
        raise ValueError("`requests` name rows of `forget_dataset`, which is a stream. Pass a `datasets.Dataset`.")
    for number, rows in enumerate(requests.values()):
        if len(rows) == 0 or not 0 <= min(rows) <= max(rows) < len(forget_dataset):
            raise ValueError(
                f"The rows of request {number} of `requests` must be among the {len(forget_dataset)} of "
                f"`forget_dataset`, and at least one; they are {len(rows)}"
                f"{f' from {min(rows)} to {max(rows)}' if len(rows) else ''}."
            )


def check_reference(model: nn.Module, reference_model: nn.Module) -> None:
    """
    Refuses a reference that shares weights with the model, such as two adapters put on one and the same base object.

    Raises:
        `ValueError`: If they share a parameter.
    """
    own = set(model.parameters())
    shared = [name for name, parameter in reference_model.named_parameters() if parameter in own]
    if shared:
        raise ValueError(
            f"`reference_model` shares {len(shared)} parameters with the model, {shared[0]} for one, and would change "
            "with it. Load it on its own; two adapters need a base each."
        )


def check_relearning(model: nn.Module, reference_model: nn.Module | None, names: Collection[str]) -> None:
    """
    Refuses models of which no copy can be trained to measure relearning.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        reference_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            The reference.
        names (`Collection[str]`):
            Names of the parameters in scope, which are trained in both.

    Raises:
        `ValueError`: If one of the two is sharded, or the reference does not have the parameters.
    """
    for one in (model, reference_model):
        if one is not None and any(map(is_sharded, one.parameters())):
            raise ValueError(
                f"`relearning_steps` trains a copy of the model, and this {type(one).__name__} is sharded over "
                "several processes. Leave it at 0, and measure relearning on the saved result in one process."
            )
    if reference_model is None:
        return
    missing = set(names) - dict(reference_model.named_parameters(remove_duplicate=False)).keys()
    if missing:
        raise ValueError(
            f"`relearning_steps` trains the parameters in scope, and `reference_model` does not have {len(missing)} "
            f"of them, {min(missing)} for one. Pass a reference of the model's own kind, or leave it at 0."
        )


def check_quantization(model: nn.Module, reference_model: nn.Module | None) -> None:
    """
    Refuses models whose weights cannot be rounded as a whole.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        reference_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            The reference.

    Raises:
        `ValueError`: If one of the two has an adapter, or is one that [`quantized`] refuses.
    """
    for argument, one in (("model", model), ("reference_model", reference_model)):
        if one is None:
            continue
        if is_adapted(one):
            raise ValueError(
                f"`quantization_bits` rounds the weights that are deployed, and `{argument}` has an adapter, where "
                "base and adapter would be rounded each by itself. Leave it out, and evaluate a merged copy of the "
                "result (`merge_and_unload()`) within `hf_deepclean.quantized`."
            )
        try:
            with quantized(one, 8):
                pass
        except ValueError as error:
            raise ValueError(f"`quantization_bits` cannot be measured of `{argument}`. {error}") from error


def check_dataset(dataset: Any, argument: str, num_labels: int | None) -> None:
    """
    Refuses a data set without length or rows, or with a label column outside the head's range. A stream is checked
    when it is read.

    Labels that only a transform or the caller's collator makes are checked with the first batch.

    Args:
        dataset ([`~datasets.Dataset`], map-style or iterable):
            The data set.
        argument (`str`):
            Name of the argument it was passed as.
        num_labels (`int`, *optional*):
            Number of classes of the head, if labels are class indices.

    Raises:
        `TypeError`: If it has no length or cannot be indexed.
        `ValueError`: If it is empty, or has labels outside the range.
    """
    if is_stream(dataset):
        return
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"`{argument}` is a {type(dataset).__name__}, which cannot be indexed or has no length. Pass a "
            "`datasets.Dataset`, another map-style data set, or a stream that is an `IterableDataset`."
        )
    if len(dataset) == 0:
        raise ValueError(f"`{argument}` is empty. Both the forget and the retain Fisher need at least one example.")
    columns = dataset.column_names if hasattr(dataset, "with_format") else ()
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    if label is None or num_labels is None:
        return
    labels = np.asarray(dataset.with_format("numpy", columns=[label])[label][:])
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        outside = (labels < 0) | (labels >= num_labels)
        if outside.any():
            raise ValueError(
                f"`{argument}` has {int(outside.sum())} of {len(labels)} labels outside the head's range 0 to "
                f"{num_labels - 1}. Map them to the model's `config.label2id`, or load the model with the right "
                "`num_labels`."
            )


def check_sequence_lengths(model: nn.Module, dataset: Any, argument: str) -> None:
    """
    Refuses tokenised rows that are longer than the table of position embeddings.

    Models without such a table (rotary, relative or computed positions) have no such limit. Only a
    [`~datasets.Dataset`] whose `input_ids` reach the model as they are is looked at; of others the model itself will
    complain.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
        dataset ([`~datasets.Dataset`] or map-style):
            The data set.
        argument (`str`):
            Name of the argument it was passed as.

    Raises:
        `ValueError`: If rows are too long; says how many.
    """
    limit = max_sequence_length(model)
    formatted = getattr(dataset, "format", None)
    if limit is None or not isinstance(formatted, dict) or formatted["type"] == "custom":
        return
    if "input_ids" not in dataset.column_names:
        return
    tables = dataset.with_format("arrow").select_columns("input_ids").iter(batch_size=10_000)
    lengths = [table["input_ids"].combine_chunks() for table in tables]
    if not all(is_list(column.type) or is_large_list(column.type) for column in lengths):
        return
    longer = sum(int((column.value_lengths().to_numpy(zero_copy_only=False) > limit).sum()) for column in lengths)
    if longer:
        raise ValueError(
            f"{longer} of {len(dataset)} rows of `{argument}` have more than the {limit} tokens that this "
            f"{type(model).__name__} has positions for. Cut them as was done in training (`max_length={limit}` of the "
            "tokenizer), or leave them out."
        )


def max_sequence_length(model: nn.Module) -> int | None:
    """
    Number of tokens that the model's table of position embeddings has room for; none without such a table.

    The table lies beside that of the token embeddings, in the encoder if there are two. Positions that a padding
    index (RoBERTa) or an offset (OPT, BART) keeps from being used do not count.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model.
    """
    try:
        tokens = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    config = getattr(model, "config", None)
    part = model.get_encoder() if getattr(config, "is_encoder_decoder", False) else model
    for module in part.modules():
        tables = {name: child for name, child in module.named_children() if isinstance(child, nn.Embedding)}
        if not any(table is tokens or table.weight is tokens.weight for table in tables.values()):
            continue
        for name, table in tables.items():
            if name == "wpe" or "position" in name:
                unused = getattr(table, "offset", 0 if table.padding_idx is None else table.padding_idx + 1)
                # Some tables have rows to spare.
                return min(table.num_embeddings - unused, getattr(config, "max_position_embeddings", math.inf))
    return None


def check_batch_has_labels(batch: Mapping[str, Any], argument: str) -> None:
    """
    Refuses a collated batch without labels.

    Raises:
        `ValueError`: If the key `"labels"` is missing.
    """
    try:
        split_labels(batch)
    except ValueError as error:
        raise ValueError(f"`{argument}` has no labels. {error}") from None


def check_disjoint(forget_dataset: Any, retain_dataset: Any, *, disable_tqdm: bool = True) -> None:
    """
    Refuses forget and retain sets that share rows, compared by content.

    Two `datasets.Dataset` are compared on their common columns, files and images by their undecoded bytes; other
    map-style data sets on what indexing returns.

    Args:
        forget_dataset, retain_dataset ([`~datasets.Dataset`] or map-style):
            The two sets.
        disable_tqdm (`bool`, *optional*, defaults to `True`):
            Whether to do without a progress bar, which otherwise appears after a second.

    Raises:
        `ValueError`: If rows of the forget set occur in the retain set; says how many.
    """
    if is_stream(forget_dataset) or is_stream(retain_dataset):
        if is_main_process():
            logger.warning(
                "A stream is not read for a comparison of its rows: make sure that no row to forget is among those to "
                "retain, or pass a `datasets.Dataset`."
            )
        return
    columns = None
    if hasattr(forget_dataset, "features") and hasattr(retain_dataset, "features"):
        columns = [name for name in forget_dataset.column_names if name in retain_dataset.column_names]
        if not columns:
            return
    forgotten = Counter(row_digests(forget_dataset, columns, disable_tqdm=disable_tqdm))
    shared = {
        digest for digest in row_digests(retain_dataset, columns, disable_tqdm=disable_tqdm) if digest in forgotten
    }
    if shared:
        count = sum(forgotten[digest] for digest in shared)
        raise ValueError(
            f"{count} of {len(forget_dataset)} rows of `forget_dataset` are in `retain_dataset` too, so the repair "
            "would teach the model again what it is to forget. Remove them from the retain set; equal rows that "
            "belong to different people have to be on one side."
        )
