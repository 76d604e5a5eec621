# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Puts paths into configurations, and an access token into the arguments of a run."""

import json
import os
import shutil

from transformers import TrainerCallback

from hf_deepclean.publishing.contents.configurations import check_no_paths, public_configuration
from tests import published
from tests.tokenizers import byte_tokenizer


PATHS = [
    *("/home/ann/models/x", "/data/ward7/x", "/scratch/ann/my models/x", "/.cache/ann/x", "~/x", "~ann/x"),
    *("C:\\models\\x", "d:/x", "\\\\server\\share", "\\\\server\\share\\x", "\\\\?\\C:\\x", "//server/share/x"),
    *("../data/x", "./x", "..\\x", "data/ward7/train.jsonl", "out\\rows.parquet", "file:///data/x", "file:/x"),
    *("s3://ward7/x", "gs://ward7", "abfss://c@a.dfs.core.windows.net/x", "hdfs:///x", "dbfs:/mnt/x"),
    *("$HOME/x", "${SCRATCH}/x", "%USERPROFILE%\\x", "ann@host:/data/x", "nas01:/export/models", "%2Fhome%2Fann%2Fx"),
    *(" /home/ann/x ", '"/home/ann/x"', "loaded from /home/ann/x", "see file:///Users/ann/x"),
    *("{% set a = '/home/ann/b' %}", "C:\\Users\\ann\\x or so", "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"),
]  # fmt: skip


def at(*keys):
    """An attempt that puts a path at a place in a JSON file."""

    def attempt(folder, file, path):
        record = json.loads((folder / file).read_text())
        inner = record
        for key in keys:
            inner = inner.setdefault(key, {})
        inner["of_training"] = [path]
        (folder / file).write_text(json.dumps(record))

    return attempt


def as_key(folder, file, path):
    record = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(record | {"of_training": {path: 1}}))


def twice(folder, file, path):
    """The last one of two equal keys is what a parser keeps."""
    text = (folder / file).read_text().rstrip().rstrip("}").rstrip()
    (folder / file).write_text(f'{text}, "of_training": {json.dumps(path)}, "of_training": 1}}')


def in_large(folder, file, path):
    record = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(record | {"numbers": ["words of no meaning"] * 60_000, "of_training": path}))


PLACES = {
    "value": at(),
    "nested value": at("a", "text_config", "quantization_config"),
    "key": as_key,
    "first of two equal keys": twice,
    "more than a megabyte": in_large,
}


def holds(file, path):
    return json.dumps(path)[1:-1].encode() in file.read_bytes()


def test_no_path_of_a_machine_leaves_in_a_configuration(tmp_path, attack):
    folder, target = tmp_path / "run", tmp_path / "public"
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)
    published.llama(tokenizer).save_pretrained(folder)
    files = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    kept = {name: (folder / name).read_text() for name in files}
    large = "more than a megabyte"
    tries = [(place, "generation_config.json", path) for place in PLACES if place != large for path in PATHS]
    tries += [(place, file, PATHS[1]) for place in PLACES for file in files]
    survivors = {}
    for place, file, path in tries:
        PLACES[place](folder, file, path)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (target / file).write_text(public_configuration(folder / file, None) or (folder / file).read_text())
        try:
            check_no_paths(target)
            survivors[f"{path} as {place} of {file}"] = holds(target / file, path)
        except ValueError as error:
            survivors[f"{path} as {place} of {file}"] = path.strip() in str(error)
        (folder / file).write_text(kept[file])
    assert attack("no path of a machine is sent", survivors) == []


def test_no_personal_folder_leaves_in_a_template_or_in_code(tmp_path, attack):
    lines = ("{# /home/ann/x #}", "# C:\\Users\\ann\\x", "see file:///Users/ann/x", f"token = '{PATHS[-1]}'")
    survivors = {}
    for name in ("chat_template.jinja", "additional_chat_templates/brief.jinja", "modeling_own.py"):
        for line in lines:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(f"first\n{line}\n")
            try:
                check_no_paths(tmp_path)
                survivors[f"{line} in {name}"] = True
            except ValueError as error:
                survivors[f"{line} in {name}"] = f"{name} holds" not in str(error) or "`line 2`" not in str(error)
        (tmp_path / name).unlink()
    assert attack("no path of a machine is sent", survivors) == []


MARKER = "hf_" + "Marker" * 6


class _Snapshots(TrainerCallback):
    """Copies the output directory after each step, as a kill would leave it."""

    def __init__(self, folder, target):
        self.folder, self.target = folder, target

    def on_step_end(self, args, state, control, **kwargs):
        shutil.copytree(self.folder, self.target / str(state.global_step))


def test_no_file_of_a_run_holds_the_access_token(tmp_path, attack):
    folder = tmp_path / "run"
    unlearner = published.classifier(folder, hub_token=MARKER, save_strategy="steps", save_steps=1)
    # Nothing reads these in this run.
    unlearner.args.gradient_checkpointing_kwargs = {"token": "secret-Marker", "inner": [{"note": MARKER}]}
    unlearner.add_callback(_Snapshots(folder, tmp_path / "killed"))
    before = os.umask(0)
    try:
        unlearner.unlearn()
    finally:
        os.umask(before)
    assert unlearner.args.hub_token == MARKER and unlearner.args.gradient_checkpointing_kwargs["inner"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"training_args.bin", "report.json", "progress.json", "optimizer.pt"} <= {path.name for path in files}
    found = {str(path.relative_to(tmp_path)): b"Marker" in path.read_bytes() for path in files}
    assert attack("no file holds the access token", found) == []
    assert (folder / "report.json").stat().st_mode & 0o077 == 0
    assert (folder / "forget_commitment.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "killed" / "1" / "_unlearning_state").stat().st_mode & 0o077 == 0
