# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the answers of models on a data set."""

import math

import numpy as np

from hf_deepclean.evaluation.predictions import ExamplePredictions, TokenPredictions


NUM_CLASSES = 10


def answers(accuracy, size=1000):
    """Answers of a classifier with this accuracy, on classes of the same size."""
    labels = np.arange(size) % NUM_CLASSES
    given = np.where(np.arange(size) < round(accuracy * size), labels, (labels + 1) % NUM_CLASSES)
    log_probabilities = np.where(np.eye(NUM_CLASSES)[given], math.log(0.91), math.log(0.01))
    return ExamplePredictions(None, labels, log_probabilities[np.arange(size), labels], log_probabilities)


def token_answers(correct, counts, classes=None):
    correct = np.asarray(correct, dtype=bool)
    scores = np.where(correct, -0.1, -3.0)
    tokens = TokenPredictions(scores, correct, np.asarray(counts), classes is None, classes)
    return ExamplePredictions(None, np.zeros((len(counts), 4)), np.zeros(len(counts)), None, tokens)


def likelihoods(values):
    return ExamplePredictions(None, np.zeros(len(values)), np.log(values), None)
