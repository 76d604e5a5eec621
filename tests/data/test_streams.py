# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from hf_deepclean.data.streams import first_rows, is_stream
from tests.data.examples import batches_of, sources


def test_a_stream_can_be_cut_short():
    for kind, dataset in sources(11).items():
        assert is_stream(dataset) == ("stream" in kind)
        if is_stream(dataset):
            assert sum(len(batch["labels"]) for _, batch in batches_of(first_rows(dataset, 7))) == 7
