# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest

from hf_deepclean.runtime import clock
from hf_deepclean.runtime.clock import PhaseClock


@pytest.fixture(autouse=True)
def ticking(monkeypatch):
    """A clock that moves on by a second whenever it is read."""
    seconds = iter(range(100))
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


def test_the_outermost_of_nested_phases_counts_and_repetitions_add_up():
    timer = PhaseClock()
    for _ in range(2):
        with timer.phase("outer"), timer.phase("inner"):
            pass
    with timer.phase("inner"):
        pass
    assert timer.seconds == {"outer": 2.0, "inner": 1.0}


def test_a_phase_that_fails_is_not_counted_and_the_next_one_is():
    timer = PhaseClock({"before": 5.0})
    with pytest.raises(KeyError), timer.phase("failed"):
        raise KeyError
    with timer.phase("before"):
        pass
    assert timer.seconds == {"before": 6.0}
