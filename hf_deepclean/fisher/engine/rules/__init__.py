# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Closed forms, one per op: how the output gradient of an op gives the per-example gradients of its parameters.

A rule belongs to an op and not to a module. So the engine sees what any module class does in its `forward`, and it
sees a parameter that is used outside its own module.
"""
