# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Make a trained model forget chosen training data, and measure what that did."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__


_MODULES = {
    "AdaptiveDampening": "baselines.dampening",
    "CancellationError": "selection.subtraction",
    "DataArguments": "data.arguments",
    "FineTuning": "baselines.finetuning",
    "FirstOrderInfluence": "baselines.influence",
    "FisherCallback": "fisher.callback",
    "FisherDiagonal": "fisher.diagonal",
    "FisherForgetting": "baselines.noise",
    "FisherUnlearner": "unlearner",
    "FisherUnlearningConfig": "config",
    "ForgetCommitment": "publishing.commitment",
    "FreezeGuard": "reset.freeze_guard",
    "HistoryReport": "publishing.history",
    "LeakError": "publishing.leaks",
    "LossFreeDampening": "baselines.dampening",
    "NegGradPlus": "baselines.neggrad",
    "ProjectedGradientUnlearning": "baselines.projection",
    "PublicReport": "publishing.public_report",
    "Publication": "publishing.folder",
    "PushResult": "publishing.push",
    "RandomLabels": "baselines.labels",
    "RandomMask": "baselines.mask",
    "SalUn": "baselines.labels",
    "SecondOrderInfluence": "baselines.influence",
    "SelectiveSynapticDampening": "baselines.dampening",
    "SparseAdamW": "repair.optimizer",
    "SubspaceForgetting": "baselines.projection",
    "UnlearningCard": "publishing.card",
    "UnlearningData": "baselines.data",
    "UnlearningParser": "cli.parser",
    "UnlearningPreview": "planning.preview",
    "UnlearningReport": "report.report",
    "WeightSelection": "selection.weight_selection",
    "accumulate_fisher_diagonal": "fisher.accumulate",
    "accumulate_fisher_diagonals": "fisher.accumulate",
    "accuracy_gaps": "evaluation.gaps",
    "answer_requests": "deletion_requests",
    "average_gap": "evaluation.gaps",
    "cancellation_error": "selection.subtraction",
    "check_for_leaks": "publishing.leaks",
    "check_tokenizer": "data.preprocessing",
    "classification_log_likelihood": "models.likelihood",
    "ctc_log_likelihood": "models.likelihood",
    "exact_memorization": "evaluation.memorization",
    "extraction_strength": "evaluation.memorization",
    "find_leaks": "publishing.leaks",
    "find_old_weights": "publishing.history",
    "fisher_plane": "selection.fisher_plane",
    "is_verbatim": "evaluation.memorization",
    "jensen_shannon_divergence": "evaluation.divergence",
    "klom": "evaluation.ensembles",
    "klom_percentile": "evaluation.ensembles",
    "lira_scores": "evaluation.membership",
    "load_unlearning_datasets": "data.sources",
    "logit_scaled_confidence": "evaluation.membership",
    "margins": "evaluation.ensembles",
    "membership_attack": "evaluation.membership",
    "min_k_score": "evaluation.memorization",
    "needles_of_dataset": "publishing.leaks",
    "needles_of_machine": "publishing.leaks",
    "next_token_log_likelihood": "models.likelihood",
    "parameters_in_scope": "models.scope",
    "per_class_accuracy": "evaluation.gaps",
    "perplexity": "evaluation.memorization",
    "prepare_images": "data.preprocessing",
    "push_folder_to_hub": "publishing.push",
    "quantized": "evaluation.quantization",
    "relearning_curve": "evaluation.relearning",
    "relearning_excess": "evaluation.relearning",
    "reset_weights": "reset.values",
    "rmia_scores": "evaluation.membership",
    "save_plots": "publishing.plots",
    "save_published": "publishing.folder",
    "select_random_weights": "selection.weight_selection",
    "select_weights": "selection.rules",
    "span_log_likelihood": "models.likelihood",
    "split_forget_rows": "data.filters",
    "squash_history": "publishing.history",
    "steps_to_reach": "evaluation.relearning",
    "summarize_reports": "report.summary",
    "token_log_likelihood": "models.likelihood",
    "tokenize_causal_lm": "data.preprocessing",
    "tokenize_text_classification": "data.preprocessing",
    "tokenize_token_classification": "data.preprocessing",
    "tug_of_war": "evaluation.gaps",
    "weights_fingerprint": "models.fingerprint",
}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from ..baselines.dampening import AdaptiveDampening, LossFreeDampening, SelectiveSynapticDampening
    from ..baselines.data import UnlearningData
    from ..baselines.finetuning import FineTuning
    from ..baselines.influence import FirstOrderInfluence, SecondOrderInfluence
    from ..baselines.labels import RandomLabels, SalUn
    from ..baselines.mask import RandomMask
    from ..baselines.neggrad import NegGradPlus
    from ..baselines.noise import FisherForgetting
    from ..baselines.projection import ProjectedGradientUnlearning, SubspaceForgetting
    from ..cli.parser import UnlearningParser
    from ..data.arguments import DataArguments
    from ..data.filters import split_forget_rows
    from ..data.preprocessing import (
        check_tokenizer,
        prepare_images,
        tokenize_causal_lm,
        tokenize_text_classification,
        tokenize_token_classification,
    )
    from ..data.sources import load_unlearning_datasets
    from ..deletion_requests import answer_requests
    from ..evaluation.gaps import accuracy_gaps, average_gap, per_class_accuracy, tug_of_war
    from ..fisher.callback import FisherCallback
    from ..models.fingerprint import weights_fingerprint
    from ..models.likelihood import (
        classification_log_likelihood,
        ctc_log_likelihood,
        next_token_log_likelihood,
        span_log_likelihood,
        token_log_likelihood,
    )
    from ..models.scope import parameters_in_scope
    from ..planning.preview import UnlearningPreview
    from ..publishing.card import UnlearningCard
    from ..publishing.commitment import ForgetCommitment
    from ..publishing.folder import Publication, save_published
    from ..publishing.history import HistoryReport, find_old_weights, squash_history
    from ..publishing.leaks import LeakError, check_for_leaks, find_leaks, needles_of_dataset, needles_of_machine
    from ..publishing.plots import save_plots
    from ..publishing.public_report import PublicReport
    from ..publishing.push import PushResult, push_folder_to_hub
    from ..repair.optimizer import SparseAdamW
    from ..report.report import UnlearningReport
    from ..report.summary import summarize_reports
    from ..reset.freeze_guard import FreezeGuard
    from ..reset.values import reset_weights
    from ..selection.fisher_plane import fisher_plane
    from ..selection.rules import select_weights
    from ..selection.subtraction import CancellationError, cancellation_error
    from ..selection.weight_selection import WeightSelection, select_random_weights
    from .config import FisherUnlearningConfig
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
    from .fisher.accumulate import accumulate_fisher_diagonal, accumulate_fisher_diagonals
    from .fisher.diagonal import FisherDiagonal
    from .unlearner import FisherUnlearner


def __getattr__(name: str) -> Any:
    # Importing the package stays cheap: torch and transformers are loaded with the first name that needs them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
