# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Make a trained model forget chosen training data, and measure what that did."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

_MODULES = {
    "AdaptiveDampening": "rivals.dampening",
    "CancellationError": "cancellation",
    "DataArguments": "data",
    "FineTuning": "rivals.finetuning",
    "FirstOrderInfluence": "rivals.influence",
    "FisherCallback": "callback",
    "FisherDiagonal": "fisher.diagonal",
    "FisherForgetting": "rivals.noise",
    "FisherUnlearner": "unlearner",
    "FisherUnlearningConfig": "config",
    "ForgetCommitment": "commitment",
    "FreezeGuard": "repair",
    "HistoryReport": "hub",
    "LeakError": "leaks",
    "LossFreeDampening": "rivals.dampening",
    "NegGradPlus": "rivals.neggrad",
    "ProjectedGradientUnlearning": "rivals.projection",
    "PublicReport": "disclosure",
    "Publication": "staging",
    "PushResult": "hub",
    "RandomLabels": "rivals.labels",
    "RandomMask": "rivals.mask",
    "SalUn": "rivals.labels",
    "SecondOrderInfluence": "rivals.influence",
    "SelectiveSynapticDampening": "rivals.dampening",
    "SparseAdamW": "repair",
    "SubspaceForgetting": "rivals.projection",
    "UnlearningCard": "card",
    "UnlearningData": "rivals.data",
    "UnlearningParser": "parser",
    "UnlearningPreview": "preview",
    "UnlearningReport": "report",
    "WeightSelection": "selection",
    "accumulate_fisher_diagonal": "fisher.accumulate",
    "accumulate_fisher_diagonals": "fisher.accumulate",
    "accuracy_gaps": "evaluation.accuracy",
    "answer_requests": "deletion",
    "average_gap": "evaluation.accuracy",
    "cancellation_error": "cancellation",
    "check_for_leaks": "leaks",
    "check_tokenizer": "preprocessing",
    "classification_log_likelihood": "likelihood",
    "ctc_log_likelihood": "likelihood",
    "exact_memorization": "evaluation.memorization",
    "extraction_strength": "evaluation.memorization",
    "find_leaks": "leaks",
    "find_old_weights": "hub",
    "fisher_plane": "plane",
    "is_verbatim": "evaluation.memorization",
    "jensen_shannon_divergence": "evaluation.divergence",
    "klom": "evaluation.ensembles",
    "klom_percentile": "evaluation.ensembles",
    "lira_scores": "evaluation.membership",
    "load_unlearning_datasets": "data",
    "logit_scaled_confidence": "evaluation.membership",
    "margins": "evaluation.ensembles",
    "membership_attack": "evaluation.membership",
    "min_k_score": "evaluation.memorization",
    "needles_of_dataset": "leaks",
    "needles_of_machine": "leaks",
    "next_token_log_likelihood": "likelihood",
    "parameters_in_scope": "scope",
    "per_class_accuracy": "evaluation.accuracy",
    "perplexity": "evaluation.memorization",
    "prepare_images": "preprocessing",
    "push_folder_to_hub": "hub",
    "quantized": "evaluation.quantization",
    "relearning_curve": "evaluation.relearning",
    "relearning_excess": "evaluation.relearning",
    "reset_weights": "reset",
    "rmia_scores": "evaluation.membership",
    "save_plots": "plots",
    "save_published": "staging",
    "select_random_weights": "selection",
    "select_weights": "selection",
    "span_log_likelihood": "likelihood",
    "split_forget_rows": "data",
    "squash_history": "hub",
    "steps_to_reach": "evaluation.relearning",
    "summarize_reports": "report",
    "token_log_likelihood": "likelihood",
    "tokenize_causal_lm": "preprocessing",
    "tokenize_text_classification": "preprocessing",
    "tokenize_token_classification": "preprocessing",
    "tug_of_war": "evaluation.accuracy",
    "weights_fingerprint": "fingerprint",
}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from .callback import FisherCallback
    from .cancellation import CancellationError, cancellation_error
    from .card import UnlearningCard
    from .commitment import ForgetCommitment
    from .config import FisherUnlearningConfig
    from .data import DataArguments, load_unlearning_datasets, split_forget_rows
    from .deletion import answer_requests
    from .disclosure import PublicReport
    from .evaluation.accuracy import accuracy_gaps, average_gap, per_class_accuracy, tug_of_war
    from .evaluation.divergence import jensen_shannon_divergence
    from .evaluation.ensembles import klom, klom_percentile, margins
    from .evaluation.membership import lira_scores, logit_scaled_confidence, membership_attack, rmia_scores
    from .evaluation.memorization import (
        exact_memorization,
        extraction_strength,
        is_verbatim,
        min_k_score,
        perplexity,
    )
    from .evaluation.quantization import quantized
    from .evaluation.relearning import relearning_curve, relearning_excess, steps_to_reach
    from .fingerprint import weights_fingerprint
    from .fisher.accumulate import accumulate_fisher_diagonal, accumulate_fisher_diagonals
    from .fisher.diagonal import FisherDiagonal
    from .hub import HistoryReport, PushResult, find_old_weights, push_folder_to_hub, squash_history
    from .leaks import LeakError, check_for_leaks, find_leaks, needles_of_dataset, needles_of_machine
    from .likelihood import (
        classification_log_likelihood,
        ctc_log_likelihood,
        next_token_log_likelihood,
        span_log_likelihood,
        token_log_likelihood,
    )
    from .parser import UnlearningParser
    from .plane import fisher_plane
    from .plots import save_plots
    from .preprocessing import (
        check_tokenizer,
        prepare_images,
        tokenize_causal_lm,
        tokenize_text_classification,
        tokenize_token_classification,
    )
    from .preview import UnlearningPreview
    from .repair import FreezeGuard, SparseAdamW
    from .report import UnlearningReport, summarize_reports
    from .reset import reset_weights
    from .rivals.dampening import AdaptiveDampening, LossFreeDampening, SelectiveSynapticDampening
    from .rivals.data import UnlearningData
    from .rivals.finetuning import FineTuning
    from .rivals.influence import FirstOrderInfluence, SecondOrderInfluence
    from .rivals.labels import RandomLabels, SalUn
    from .rivals.mask import RandomMask
    from .rivals.neggrad import NegGradPlus
    from .rivals.noise import FisherForgetting
    from .rivals.projection import ProjectedGradientUnlearning, SubspaceForgetting
    from .scope import parameters_in_scope
    from .selection import WeightSelection, select_random_weights, select_weights
    from .staging import Publication, save_published
    from .unlearner import FisherUnlearner


def __getattr__(name: str) -> Any:
    # Importing the package stays cheap: torch and transformers are loaded with the first name that needs them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
