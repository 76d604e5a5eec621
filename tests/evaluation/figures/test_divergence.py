# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax

from hf_deepclean import jensen_shannon_divergence


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_both_ends_whatever_the_number_of_classes(num_classes):
    certain = np.full((2, num_classes), -np.inf)
    certain[0, 0] = certain[1, 1] = 0
    uniform = np.full((2, num_classes), -np.log(num_classes))
    assert jensen_shannon_divergence(certain, certain).tolist() == [0, 0]
    assert jensen_shannon_divergence(uniform, uniform) == pytest.approx([0, 0], abs=1e-12)
    assert jensen_shannon_divergence(certain, certain[::-1]) == pytest.approx([np.log(2)] * 2)


def test_equals_scipy_and_is_symmetric():
    generator = np.random.default_rng(0)
    first, second = (log_softmax(generator.normal(0, 5, (20, 7)), axis=1) for _ in range(2))
    expected = [jensenshannon(np.exp(p), np.exp(q)) ** 2 for p, q in zip(first, second, strict=True)]
    assert jensen_shannon_divergence(first, second) == pytest.approx(expected)
    assert jensen_shannon_divergence(second, first) == pytest.approx(expected)


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="same classes"):
        jensen_shannon_divergence(np.zeros((3, 4)), np.zeros((3, 5)))
