# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes a cleaned model: public report, card, plots, a search for leaks, and the push to the Hub."""
