# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The old path of functions that now live in `predictions` and `results`: cards on the Hub import them from here."""

from .predictions import ExamplePredictions, join_predictions, predict_batches, predict_examples
from .results import summarize_predictions


__all__ = ["ExamplePredictions", "join_predictions", "predict_batches", "predict_examples", "summarize_predictions"]
