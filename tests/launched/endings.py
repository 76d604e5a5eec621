# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Processes that end right after a message to each other, while their process group is still referenced."""

import torch.distributed as dist

from hf_deepclean.runtime.processes import check_launch, on_main_process


if __name__ == "__main__":
    dist.init_process_group("gloo")
    check_launch(dist.get_world_size())
    group = dist.group.WORLD
    # The interpreter frees these objects at its end, which takes a while.
    objects = [[number] for number in range(300_000)]
    for _ in range(5):
        on_main_process(lambda: None)
