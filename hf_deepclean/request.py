# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Loads and checks once what a run is asked to do: the model, the data sets and a kept Fisher."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from .base_checkpoint import BaseCheckpoint, find_base_checkpoint
from .config import FisherUnlearningConfig
from .data.checks import (
    LABEL_COLUMNS,
    check_batch_has_labels,
    check_class_names,
    check_dataset,
    check_requests,
    check_scored_labels,
    check_stream_starts_anew,
)
from .data.loaders import BatchSource
from .data.overlaps.checks import check_overlaps
from .data.streams import is_stream
from .evaluation.checks import check_quantization, check_relearning
from .evaluation.stages import AFTER_REPAIR, REFERENCE
from .fisher.checks import check_fisher_type, check_kept_fisher, check_rows_of_kept_fisher
from .fisher.diagonal import FisherDiagonal
from .models.adapters.parameters import is_adapted
from .models.checks import (
    check_devices,
    check_model,
    check_reference,
    check_scope_of_model,
    check_sequence_lengths,
)
from .models.heads import class_numbers, forward_arguments, num_classes
from .models.likelihood import LogLikelihoodFunction
from .models.loading import load_model
from .models.scope import parameters_in_scope, warn_of_frozen_weights
from .repair.checks import check_repair_steps
from .reset.checks import why_not_natural
from .reset.pretrained import check_pretrained_model
from .reset.sources import ResetSources
from .reset.values import REWINDING, default_reset_value
from .runtime.processes import is_main_process


logger = logging.getLogger(__name__)

# The methods of an unlearner that do one phase, and that a whole run does not call. It does call `train`.
_PHASE_METHODS = ("compute_fisher", "select_weights", "reset_weights", "evaluate_unlearning")

# What was found for a model when it was first seen. A run changes the model, and what it was loaded from may then look
# like a checkpoint before its training.
_first_found: "WeakKeyDictionary[nn.Module, BaseCheckpoint]" = WeakKeyDictionary()
# With fewer bytes per weight, a cleaned model cannot be told from a trained one by its weights.
_BYTES_THAT_TELL = 4
_AFTER_ANOTHER = "what the model was loaded from, which may be the model before an earlier request of this process"


@dataclass(frozen=True)
class UnlearningRequest:
    """
    A deletion request: the model that must forget, the data sets, and the model to compare with.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model to clean.
        source (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model as it was passed: a path, an id or an object.
        splits (`dict[str, Any]`):
            The data sets by name: `"forget"`, `"retain"`, and where given `"eval"` (or `"eval_NAME"`) and `"unseen"`.
        reset_value (`str`):
            The value of the selected weights after the reset: `"zero"`, `"init"`, `"pretrained"` or
            `"natural"`.
        requests (`dict[str, Sequence[int]]`):
            The rows of the forget set by request. Empty for a single request.
        reference_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`], *optional*):
            A model trained without the forget data.
        kept_fisher ([`FisherDiagonal`], *optional*):
            The Fisher of the whole training set.
        log_likelihood_func (`Callable`, *optional*):
            The caller's likelihood. By default that of the model's head.
        base_checkpoint ([`BaseCheckpoint`]):
            The checkpoint that the model was fine-tuned from, for `"pretrained"` and `"natural"`.
        reset_sources ([`ResetSources`]):
            What trials, reset and control read their values from.
    """

    model: nn.Module
    source: Any
    splits: Mapping[str, Any]
    reset_value: str
    requests: Mapping[str, Sequence[int]]
    reference_model: nn.Module | None = None
    kept_fisher: FisherDiagonal | None = None
    log_likelihood_func: LogLikelihoodFunction | None = None
    base_checkpoint: BaseCheckpoint = BaseCheckpoint()
    reset_sources: ResetSources = field(default_factory=ResetSources)

    @classmethod
    def of(
        cls,
        model: str | os.PathLike[str] | PreTrainedModel,
        args: FisherUnlearningConfig,
        splits: Mapping[str, Any],
        *,
        reference_model: str | PreTrainedModel | None = None,
        kept_fisher: str | os.PathLike[str] | FisherDiagonal | None = None,
        requests: Mapping[str, Sequence[int]] | None = None,
        log_likelihood_func: LogLikelihoodFunction | None = None,
        model_init: Callable[[], Any] | None = None,
    ) -> "UnlearningRequest":
        """
        Loads and checks everything that a run needs, before any heavy work.

        Args:
            model (`str` or [`~transformers.PreTrainedModel`]):
                The model, or a path or id to load it from.
            args ([`FisherUnlearningConfig`]):
                The configuration.
            splits, reference_model, kept_fisher, requests, log_likelihood_func:
                As for the class. Reference model and Fisher may be paths.
            model_init (`Callable`, *optional*):
                Builds the model as it was before its training; see [`find_base_checkpoint`].

        Raises:
            `ValueError`: If something cannot work. The message says what to do.
        """
        check_fisher_type(args.fisher_type, log_likelihood_func)
        _check_label_smoothing(args, log_likelihood_func)
        check_devices(args.world_size, args.n_gpu, model)
        check_scope_of_model(model, args.reset_scope)
        source, model = model, load_model(model, args.seed, args.trust_remote_code)
        check_model(model, args.reset_scope, args.reset_value or default_reset_value(model))
        scope = _parameters_in_scope(model, args)
        warn_of_frozen_weights(model, args.reset_scope)
        base = _find_base_checkpoint(model, scope, args, source, model_init)
        reset_value = _reset_value(model, args, splits, base, log_likelihood_func is not None)
        _check_splits(model, args, splits, log_likelihood_func)
        forget, retain = splits["forget"], splits["retain"]
        check_requests(requests, forget)
        if kept_fisher is not None:
            kept_fisher = _load_fisher(kept_fisher)
            arguments = args.fisher_type, args.fisher_max_examples, log_likelihood_func
            check_kept_fisher(kept_fisher, model, scope, *arguments, forget, retain)
        model_columns = [*forward_arguments(model), *LABEL_COLUMNS] if args.remove_unused_columns else None
        check_overlaps(splits, model_columns, disable_tqdm=args.disable_tqdm or not is_main_process())
        if reference_model is not None:
            reference_model = load_model(reference_model, args.seed, args.trust_remote_code).to(args.device)
            check_reference(model, reference_model)
        if args.relearning_steps > 0:
            check_relearning(model, reference_model, scope)
        if args.quantization_bits:
            check_quantization(model, reference_model)
        requests = {} if requests is None else dict(requests)
        compared = reference_model, kept_fisher
        # A checkpoint that was passed has been checked, with its warnings.
        sources = ResetSources(1 + args.random_mask_control, warns=args.pretrained_model is None)
        return cls(model, source, splits, reset_value, requests, *compared, log_likelihood_func, base, sources)

    def with_attributes_of(self, unlearner: Any) -> "UnlearningRequest":
        """
        Returns the request with what a caller may have set since, as attributes of the unlearner.

        Args:
            unlearner ([`FisherUnlearner`]):
                The unlearner.
        """
        names = ("model", "reset_value", "requests", "reference_model", "kept_fisher", "log_likelihood_func")
        splits = (getattr(unlearner, f"{split}_dataset") for split in ("forget", "retain", "eval", "unseen"))
        return replace(self, splits=name_splits(*splits), **{name: getattr(unlearner, name) for name in names})

    def check_kept_fisher(self, weights: str, checked: "UnlearningRequest") -> None:
        """
        Refuses a kept Fisher of other weights than the model's are now, or of other rows than the data sets have now.

        Args:
            weights (`str`):
                The fingerprint of the model's present weights.
            checked ([`UnlearningRequest`]):
                The request as it was checked. The same objects are not read again.

        Raises:
            `ValueError`: If there is a kept Fisher, and it is one of these.
        """
        if self.kept_fisher is None:
            return
        self.kept_fisher.check_fresh(weights)
        pairs = [(self.kept_fisher, checked.kept_fisher), (self.forget_dataset, checked.forget_dataset)]
        if any(now is not then for now, then in [*pairs, (self.retain_dataset, checked.retain_dataset)]):
            check_rows_of_kept_fisher(self.kept_fisher, self.forget_dataset, self.retain_dataset)

    @property
    def forget_dataset(self) -> Any:
        """The forget set."""
        return self.splits["forget"]

    @property
    def retain_dataset(self) -> Any:
        """The retain set."""
        return self.splits["retain"]

    @property
    def pretrained_model(self) -> str | PreTrainedModel | None:
        """What the weights are rewound to, if they are."""
        return self.base_checkpoint.model if self.reset_value in REWINDING else None

    @property
    def forget_share(self) -> float | None:
        """Share of the forget set among all training data. `None` if one of the data sets is a stream."""
        if is_stream(self.forget_dataset) or is_stream(self.retain_dataset):
            return None
        return len(self.forget_dataset) / (len(self.forget_dataset) + len(self.retain_dataset))

    @property
    def has_adapter(self) -> bool:
        """Whether the model has an adapter."""
        return is_adapted(self.model)

    @property
    def models_to_compare(self) -> dict[str, nn.Module]:
        """The models that the further measurements compare, by stage."""
        models = {AFTER_REPAIR: self.model, REFERENCE: self.reference_model}
        return {stage: model for stage, model in models.items() if model is not None}

    def parameters_in_scope(self, args: FisherUnlearningConfig) -> dict[str, nn.Parameter]:
        """
        Returns the parameters that may be reset, by name.

        Args:
            args ([`FisherUnlearningConfig`]):
                The configuration.
        """
        return _parameters_in_scope(self.model, args)

    def first_batches(self, source: BatchSource, size: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """
        Yields the first batch of every data set, with the name of the data set.

        Args:
            source ([`BatchSource`]):
                Makes the batches.
            size (`int`):
                Number of rows of a batch.

        Raises:
            `ValueError`: If a batch has no labels, or a stream can be read only once. No row of it is read then.
        """
        for split, dataset in self.splits.items():
            source.check_no_none(dataset)
            check_stream_starts_anew(dataset, f"{split}_dataset")
            _, batch = next(source.batches(dataset, size, in_turns=False))
            check_batch_has_labels(batch, f"{split}_dataset", partial(source.why_without_labels, dataset))
            yield split, batch


def name_splits(
    forget: Any, retain: Any, evaluation: Any | dict[str, Any] | None, unseen: Any | None
) -> dict[str, Any]:
    """
    Names the data sets of a request: `"forget"`, `"retain"`, `"eval"` (or `"eval_NAME"`) and `"unseen"`.

    Args:
        forget, retain, unseen (`Any`):
            The data sets.
        evaluation (`Any` or `dict[str, Any]`, *optional*):
            Test data, or several test sets by name.
    """
    splits = {"forget": forget, "retain": retain}
    if isinstance(evaluation, Mapping):
        splits |= {f"eval_{name}": dataset for name, dataset in evaluation.items()}
    elif evaluation is not None:
        splits["eval"] = evaluation
    if unseen is not None:
        splits["unseen"] = unseen
    return splits


def check_overrides(unlearner: Any, base: type) -> None:
    """
    Refuses an unlearner that has a phase of its own, which a whole run would leave out.

    Args:
        unlearner ([`FisherUnlearner`]):
            The unlearner.
        base (`type`):
            The class whose phases a run has.

    Raises:
        `TypeError`: If the unlearner overrides one of them.
    """
    for name in _PHASE_METHODS:
        if getattr(getattr(unlearner, name), "__func__", None) is not getattr(base, name):
            raise TypeError(
                f"{type(unlearner).__name__} overrides `{name}`, which `unlearn()` and `preview()` do not call. Call "
                "the phases one by one: `compute_fisher`, `select_weights`, `reset_weights`, `train` and "
                "`evaluate_unlearning`."
            )


def _parameters_in_scope(model: nn.Module, args: FisherUnlearningConfig) -> dict[str, nn.Parameter]:
    return parameters_in_scope(model, args.target_modules, args.exclude_modules, reset_scope=args.reset_scope)


def _find_base_checkpoint(
    model: nn.Module,
    scope: Mapping[str, nn.Parameter],
    args: FisherUnlearningConfig,
    source: Any,
    model_init: Callable[[], Any] | None,
) -> BaseCheckpoint:
    if args.pretrained_model is not None or is_adapted(model) or args.reset_value in ("zero", "init"):
        if not is_adapted(model) and model.dtype.itemsize < _BYTES_THAT_TELL:
            _first_found.setdefault(model, BaseCheckpoint(may_exist=True, skipped=(_AFTER_ANOTHER,)))
        if args.pretrained_model is None:
            return BaseCheckpoint()
        check_pretrained_model(model, scope, args.pretrained_model)
        return BaseCheckpoint.given(args.pretrained_model)
    found = None if model_init is not None else _first_found.get(model)
    if found is None:
        is_saved = isinstance(source, (str, os.PathLike))
        found = find_base_checkpoint(model, scope, is_saved=is_saved, model_init=model_init, seed=args.seed)
        _first_found[model] = found
    if args.reset_value in REWINDING and found.model is None:
        raise ValueError(
            f"`reset_value={args.reset_value!r}` rewinds to the checkpoint before fine-tuning, and none is at hand"
            f"{''.join(f'; {reason}' for reason in found.skipped)}. Pass it as `pretrained_model`, or use another "
            "`reset_value`."
        )
    sentence = found.sentence("pretrained" if found.model is not None else default_reset_value(model))
    if sentence and is_main_process():
        logger.info(sentence)
    return found


def _reset_value(
    model: nn.Module, args: FisherUnlearningConfig, splits: Mapping[str, Any], base: BaseCheckpoint, is_custom: bool
) -> str:
    """The reset value, by default the best that is possible. Refuses a natural reset that is not."""
    if args.reset_value not in (None, "natural"):
        return args.reset_value
    if base.model is None:
        return default_reset_value(model)
    options = {"rule": args.selection, "target": args.target, "gamma_sweep": args.gamma_sweep}
    reason = why_not_natural(model, splits, is_custom=is_custom, forget_penalty=args.forget_penalty, **options)
    if reason is not None and args.reset_value == "natural":
        raise ValueError(f"`reset_value='natural'` is not possible here: {reason}. Use `reset_value='pretrained'`.")
    return "natural" if reason is None else "pretrained"


def _check_label_smoothing(args: FisherUnlearningConfig, log_likelihood_func: LogLikelihoodFunction | None) -> None:
    if log_likelihood_func is not None and args.label_smoothing_factor != 0:
        raise ValueError(
            f"`label_smoothing_factor={args.label_smoothing_factor}` smooths over the classes of a classification "
            "head, which a `log_likelihood_func` does not show. Leave one of the two out."
        )


def _check_splits(
    model: nn.Module,
    args: FisherUnlearningConfig,
    splits: Mapping[str, Any],
    log_likelihood_func: LogLikelihoodFunction | None,
) -> None:
    num_labels = None if log_likelihood_func is not None else num_classes(model)
    for split, dataset in splits.items():
        check_dataset(dataset, f"{split}_dataset", num_labels)
        check_class_names(dataset, f"{split}_dataset", class_numbers(model))
        check_scored_labels(dataset, f"{split}_dataset")
        check_sequence_lengths(model, dataset, f"{split}_dataset")
    check_repair_steps(args, splits["retain"])
    if not is_stream(splits["retain"]):
        return
    if args.max_steps <= 0 and args.num_train_epochs > 0:
        raise ValueError(
            "`retain_dataset` is a stream, so the length of an epoch is not known. Set `max_steps`, the number of "
            "steps of the repair (or `num_train_epochs=0` for no repair)."
        )
    if (args.hard_example_share or 1) < 1:
        raise ValueError(
            f"`hard_example_share={args.hard_example_share}` reads rows again by their losses, but `retain_dataset` "
            "is a stream. Leave it out, or pass a `datasets.Dataset`."
        )


def _load_fisher(fisher: str | os.PathLike[str] | FisherDiagonal) -> FisherDiagonal:
    if isinstance(fisher, FisherDiagonal):
        return fisher
    return FisherDiagonal.load(fisher) if Path(fisher).is_file() else FisherDiagonal.from_pretrained(fisher)
