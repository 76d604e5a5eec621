# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Puts other weights, other files and links where a push would send them."""

import json
import os
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_deepclean import push_folder_to_hub
from hf_deepclean.publishing import folder as publishing
from hf_deepclean.publishing import push as pushing
from hf_deepclean.publishing import staged_files
from hf_deepclean.publishing.folder import save_published
from hf_deepclean.publishing.leaks import Needles
from tests import published
from tests.publishing.conftest import api, few_pictures, runs  # noqa: F401
from tests.publishing.pushing import REPO, output
from tests.tokenizers import byte_tokenizer


WEIGHTS = {
    "classifier": "model.safetensors",
    "causal_lm": "model.safetensors",
    "adapter": "adapter_model.safetensors",
    "shards": "model-00001-of-00003.safetensors",
}


@pytest.fixture
def copied(runs, tmp_path):  # noqa: F811
    """A function that returns a new copy of a finished run's output directory."""
    number = iter(range(1000))

    def copy(kind="classifier"):
        folder = tmp_path / f"{next(number)}" / "out"
        shutil.copytree(output(runs["classifier" if kind == "shards" else kind]), folder)
        if kind == "shards":
            published.in_shards(folder)
        return folder

    return copy


def is_sent(folder, hub, api):  # noqa: F811
    """Whether a push to a new repository of what is in a folder goes through."""
    number = len(hub.requests)
    try:
        push_folder_to_hub(folder, f"{REPO}-{number}", needles=Needles(), api=api)
    except (ValueError, OSError):
        return False
    return True


def is_published(folder):
    """Whether the same files would be published in a folder, which is searched and checked likewise."""
    target = folder.parent / "public"
    try:
        save_published(folder, target, Needles())
    except (ValueError, OSError):
        return False
    shutil.rmtree(target)
    return True


def edited(change):
    """An attempt that changes the tensors of a file of weights."""

    def attempt(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return attempt


def flip_bit(place, bit=0):
    def attempt(path):
        content = bytearray(path.read_bytes())
        first = 8 + int.from_bytes(content[:8], "little")
        content[first + int(place * (len(content) - first - 1))] ^= 1 << bit
        path.write_bytes(content)

    return attempt


def swap(tensors):
    """Exchanges two tensors of the same shape and other values."""
    names = sorted(tensors)
    for one in names:
        for other in names:
            if tensors[one].shape == tensors[other].shape and not torch.equal(tensors[one], tensors[other]):
                tensors[one], tensors[other] = tensors[other], tensors[one]
                return
    raise AssertionError("no two tensors of one shape")


def rename(tensors):
    name = sorted(tensors)[0]
    tensors[f"{name}x"] = tensors.pop(name)


def first(change):
    """Changes the first tensor of several entries."""

    def apply(tensors):
        name = max(tensors, key=lambda name: tensors[name].numel())
        tensors[name] = change(tensors[name])

    return apply


def other_model(path):
    torch.manual_seed(5)
    tensors = {name: torch.randn(tensor.shape) for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


TAMPERED = {
    "all weights of another model": other_model,
    "lowest bit of the first byte": flip_bit(0.0),
    "lowest bit in the middle": flip_bit(0.5),
    "sign of the last number": flip_bit(1.0, 7),
    "one bit at a third": flip_bit(0.33, 3),
    "two tensors exchanged": edited(swap),
    "a tensor renamed": edited(rename),
    "a tensor added": edited(lambda tensors: tensors.update(extra=torch.zeros(2))),
    "a tensor left out": edited(lambda tensors: tensors.pop(sorted(tensors)[0])),
    "a tensor in half precision": edited(first(lambda tensor: tensor.half())),
    "a tensor with another shape": edited(first(lambda tensor: tensor.reshape(-1).contiguous())),
    "a tensor of zeros": edited(first(torch.zeros_like)),
    "the file cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "bytes behind the end": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 8),
    "an empty file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize(
    "kind",
    ["classifier", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("causal_lm", "adapter", "shards"))],
)
def test_weights_that_the_run_has_not_saved_are_not_published(copied, hub, api, kind, attack):  # noqa: F811
    survivors = {}
    folder = copied(kind)
    path = folder / WEIGHTS[kind]
    kept = path.read_bytes()
    for name, attempt in TAMPERED.items():
        attempt(path)
        assert path.read_bytes() != kept, name
        survivors[f"{kind}: {name}"] = is_published(folder)
        path.write_bytes(kept)
    assert attack("only weights that the run has saved are sent", survivors) == []
    assert is_sent(folder, hub, api)


def exchange_shards(folder):
    one, other = (folder / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def edit_index(change):
    def attempt(folder):
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return attempt


def point_elsewhere(index):
    named = index["weight_map"]
    name = min(named)
    named[name] = next(file for file in named.values() if file != named[name])


def test_shards_are_published_under_an_index_that_tells_the_truth(copied, attack):
    attempts = {
        "two shards exchanged": exchange_shards,
        "a tensor in two shards": lambda folder: save_file(
            load_file(folder / "model-00001-of-00003.safetensors")
            | dict(list(load_file(folder / "model-00002-of-00003.safetensors").items())[:1]),
            folder / "model-00001-of-00003.safetensors",
            {"format": "pt"},
        ),
        "the index points elsewhere": edit_index(point_elsewhere),
        "the index names one tensor less": edit_index(lambda index: index["weight_map"].popitem()),
        "the index names one tensor more": edit_index(
            lambda index: index["weight_map"].update(extra="model-00001-of-00003.safetensors")
        ),
        "a path in the index": edit_index(lambda index: index["metadata"].update(source="/home/ann/models/x")),
    }
    survivors = {}
    for name, attempt in attempts.items():
        folder = copied("shards")
        attempt(folder)
        survivors[name] = is_published(folder)
    assert attack("only weights that the run has saved are sent", survivors) == []


def in_place(path):
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1\2\3\4")


def replaced(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-4] + b"\1\2\3\4")


@pytest.mark.parametrize("in_memory", [True, False], ids=["small files", "large files"])
def test_what_is_changed_after_the_checks_is_not_sent(copied, hub, api, monkeypatch, in_memory, attack):  # noqa: F811
    if not in_memory:
        monkeypatch.setattr(staged_files, "_MAX_BYTES_IN_MEMORY", 10_000)
    survivors = {}

    def attempt(name, file, change, moment):
        folder = copied()
        repo = f"{REPO}-{len(survivors)}"

        def act():
            staged = next(folder.glob(".incomplete-*/published"))
            change((folder if "own" in name else staged) / file)

        with monkeypatch.context() as patch:
            if moment == "check":
                check = publishing.check_loads
                patch.setattr(publishing, "check_loads", lambda *args, **kwargs: (check(*args, **kwargs), act()))
            elif moment == "upload":
                targets = pushing._targets
                patch.setattr(pushing, "_targets", lambda *args: (targets(*args), act())[0])
            else:
                upload = api.preupload_lfs_files
                patch.setattr(
                    api, "preupload_lfs_files", lambda *args, **kwargs: (act(), upload(*args, **kwargs)), raising=False
                )
            sent = None
            try:
                push_folder_to_hub(folder, repo, needles=Needles(), api=api)
                sent = hub.files(repo).get(file)
            except (ValueError, ConnectionError):
                pass
        is_other = sent is not None and (file == "late.json" or sent.endswith(b"\1\2\3\4"))
        survivors[f"{name}, at the {moment}"] = is_other

    for moment in ("check", "upload", "commit"):
        attempt("own weights in place", "model.safetensors", in_place, moment)
        attempt("staged weights in place", "model.safetensors", in_place, moment)
        attempt("staged weights replaced", "model.safetensors", replaced, moment)
        attempt("staged card replaced", "README.md", replaced, moment)
        attempt("a file added", "late.json", lambda path: path.write_text("{}"), moment)
    assert attack("what was checked is what is sent", survivors) == []


def secret(folder):
    path = folder.parent / "secret.json"
    path.write_text('{"a": "secret of somebody"}')
    return path


def linked(name, target=secret):
    def attempt(folder):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        aim = target(folder)
        path.unlink(missing_ok=True)
        path.symlink_to(aim)

    return attempt


def moved(name):
    """Moves a file out of the folder, and leaves a link."""

    def attempt(folder):
        aim = folder.parent / "moved"
        (folder / name).rename(aim)
        (folder / name).symlink_to(aim)

    return attempt


def with_templates(folder):
    byte_tokenizer(chat_template={"default": "a", "brief": "b"}).save_pretrained(folder)


def templates_behind_a_link(folder):
    with_templates(folder)
    (folder / "additional_chat_templates").rename(folder.parent / "templates")
    (folder / "additional_chat_templates").symlink_to(folder.parent / "templates")


def template_behind_a_link(folder):
    with_templates(folder)
    moved("additional_chat_templates/brief.jinja")(folder)


def configured(**values):
    def attempt(folder):
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(record | values))

    return attempt


def code(name):
    def attempt(folder):
        (folder.parent / "secret.py").write_text("class Secret: pass\n")
        configured(auto_map={"AutoModel": f"{name.format(folder.parent)}.Secret"})(folder)
        if "/" not in name:
            (folder / f"{name}.py").symlink_to(folder.parent / "secret.py")

    return attempt


def generate_behind_a_link(folder):
    (folder.parent / "custom").mkdir()
    (folder.parent / "custom" / "generate.py").write_text("def generate(): pass\n")
    (folder / "custom_generate").symlink_to(folder.parent / "custom")


def bound(folder):
    here = os.getcwd()
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("LICENSE")
    os.chdir(here)


def fifo(name):
    def attempt(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return attempt


LINKS = {
    "config": moved("config.json"),
    "weights": moved("model.safetensors"),
    "report": moved("report.json"),
    "commitment": moved("forget_commitment.json"),
    "license": linked("LICENSE"),
    "card": linked("README.md"),
    "device": linked("LICENSE", lambda folder: "/dev/zero"),
    "link to nowhere": linked("LICENSE", lambda folder: folder / "nowhere"),
    "link to itself": linked("LICENSE", lambda folder: folder / "LICENSE"),
    "folder of templates": templates_behind_a_link,
    "one template": template_behind_a_link,
    "code": code("modeling_secret"),
    "absolute path of code": code("{}/secret"),
    "code above": code("../secret"),
    "code of generate": generate_behind_a_link,
    "pipe for the report": fifo("report.json"),
    "pipe for the tokenizer": fifo("tokenizer.json"),
    "pipe for the card": fifo("README.md"),
    "pipe for the weights": fifo("model.safetensors"),
    "socket": bound,
    "a lock that is a pipe": fifo(".unlearning.lock"),
}


def test_no_file_outside_the_folder_is_published_and_none_is_waited_for(copied, attack):
    survivors = {}
    for name, attempt in LINKS.items():
        folder = copied()
        attempt(folder)
        survivors[name] = is_published(folder)
    assert attack("nothing behind a link is sent", survivors) == []


def test_the_folder_itself_may_be_a_link_and_its_plots_are_not_read(copied, tmp_path):
    folder = copied()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "secret.png").write_bytes(b"secret")
    (folder / "plots").symlink_to(tmp_path / "plots")
    (tmp_path / "link").symlink_to(folder)
    assert save_published(tmp_path / "link", tmp_path / "public", Needles()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "report.json",
    ]
