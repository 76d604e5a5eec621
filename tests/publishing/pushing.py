# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Finished runs to push, and the files that a push may publish."""

from pathlib import Path

import torch

from tests import published


REPO = "tester/clean-model"
# Every pushed repository holds these, whatever the model.
ALWAYS = {"README.md", "report.json"}
PICTURES = {f"plots/{name}.png" for name in ("loss", "results")}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ALLOWED = {
    "classifier": ALWAYS | {"config.json", "model.safetensors"},
    "causal_lm": ALWAYS | TOKENIZER | {"config.json", "generation_config.json", "model.safetensors"},
    "adapter": ALWAYS | TOKENIZER | {"adapter_config.json", "adapter_model.safetensors"},
}
# An existing repository: a hand-written card, old weights, files of a training, and a file of the owner.
OLD = {
    "README.md": b"---\nlicense: mit\n---\n\n# By hand\n",
    "config.json": b"{}",
    "model.safetensors": b"old weights, all of them" * 50,
    "pytorch_model.bin": b"old weights again" * 50,
    "checkpoint-5/optimizer.pt": b"moments",
    "training_args.bin": b"pickled",
    "notes.txt": b"mine",
}


class Runs(dict):
    """
    Unlearners with finished runs, by kind. A run is made when a test first asks for it. Tests must not change its
    output directory.
    """

    def __init__(self, make_folder):
        super().__init__()
        self.make_folder = make_folder

    def __missing__(self, kind):
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self[kind] = published.RUNS[kind](self.make_folder(kind) / "run", run_name="run-Habermehl")
        self[kind].unlearn()
        torch.set_num_threads(num_threads)
        return self[kind]


def output(unlearner):
    return Path(unlearner.args.output_dir)


def head_files(hub, repo=REPO):
    return {name for name in hub.files(repo) if name != ".gitattributes"}


def push(unlearner, api, repo=REPO, **kwargs):
    return unlearner.push_to_hub(repo, api=api, **kwargs)
