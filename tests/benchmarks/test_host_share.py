# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from tests.benchmarks import host_share


def test_every_phase_is_measured_and_the_resets_are_undone(monkeypatch):
    model = host_share.Weights(3, 20)
    before = [weight.detach().clone() for weight in model.layers]
    monkeypatch.setitem(host_share.RUNS, "small", (lambda: (model, None), "zero"))
    num_weights, seconds = host_share.seconds_by_phase("small")
    assert num_weights == 1200
    assert {"ranking", "trial 4: reset and back", "Fisher plane", "digests after the repair"} <= seconds.keys()
    assert all(second >= 0 for second in seconds.values())
    changed = sum(int((old != new).sum()) for old, new in zip(before, model.layers, strict=True))
    assert 0 < changed <= round(host_share.CHOSEN * num_weights)
