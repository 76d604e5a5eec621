# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the import path that model cards on the Hub quote; the functions are in `predictions` and `results`."""

from .predictions import ExamplePredictions, join_predictions, predict_batches, predict_examples
from .results import summarize_predictions


__all__ = ["ExamplePredictions", "join_predictions", "predict_batches", "predict_examples", "summarize_predictions"]
