# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The commands that publish a result: `card`, `push`, `check-card` and `squash-history`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from ..publishing.leaks.needles import Needles

CARD = "Write the unlearning card of a run, without publishing anything"
PUSH = "Search the result of a run for leaks, and publish it on the Hub in one commit"
CHECK_CARD = "Search any folder for traces of the forgotten data"
SQUASH_HISTORY = "List the revisions of a repository that still hold the old weights, and squash its history"


def add_parsers(commands: Any) -> None:
    """Adds the four commands."""
    _add_card(commands)
    _add_push(commands)
    _add_check_card(commands)
    _add_squash_history(commands)


def _add_card(commands: Any) -> None:
    parser = commands.add_parser("card", help=CARD, description=f"{CARD}.")
    parser.add_argument("path", type=Path, metavar="DIR", help="Output directory of a run.")
    parser.add_argument(
        "--output", type=Path, metavar="README.md", help="File to write; by default the card is printed."
    )
    parser.add_argument("--repo_id", help="Repository that the model will be pushed to.")
    _add_publication_arguments(parser)
    parser.set_defaults(run=run_card)


def _add_push(commands: Any) -> None:
    parser = commands.add_parser("push", help=PUSH, description=f"{PUSH}.")
    parser.add_argument("path", type=Path, metavar="DIR", help="Output directory of a run.")
    parser.add_argument("repo_id", metavar="REPO", help="Repository, such as me/clean-model.")
    _add_forget_arguments(parser)
    _add_publication_arguments(parser)
    parser.add_argument("--gated_prompt", help="Text shown to people who request access.")
    parser.add_argument("--gated", choices=["auto", "manual"], help="Require people to request access.")
    parser.add_argument("--public", action="store_true", help="Make the repository public; by default it is private.")
    parser.add_argument("--exist_ok", action="store_true", help="Push even if the repository already holds files.")
    parser.add_argument("--create_pr", action="store_true", help="Open a pull request.")
    parser.add_argument("--revision", help="Branch to push to, by default main.")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="Run the code of the model, to load it before it is sent."
    )
    parser.add_argument("--commit_message", default="Add the cleaned model", help="Title of the commit.")
    parser.add_argument(
        "--dry_run", type=Path, metavar="FOLDER", help="Write what would be published to this folder instead."
    )
    parser.set_defaults(run=run_push)


def _add_check_card(commands: Any) -> None:
    parser = commands.add_parser("check-card", help=CHECK_CARD, description=f"{CHECK_CARD}.")
    parser.add_argument("path", type=Path, metavar="DIR", help="Folder to search.")
    _add_forget_arguments(parser)
    parser.set_defaults(run=run_check_card)


def _add_squash_history(commands: Any) -> None:
    parser = commands.add_parser("squash-history", help=SQUASH_HISTORY, description=f"{SQUASH_HISTORY}.")
    parser.add_argument("repo_id", metavar="REPO", help="The repository.")
    parser.add_argument("--branch", default="main", help="The branch.")
    parser.add_argument(
        "--yes", action="store_true", help="Squash the history, which cannot be undone; without it nothing changes."
    )
    parser.set_defaults(run=run_squash_history)


def _add_forget_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forget_file",
        "--forget-file",
        required=True,
        metavar="FILE",
        help="The forgotten rows: a csv, tsv, json, jsonl, parquet, txt or arrow file, a folder, or a Hub id.",
    )
    parser.add_argument("--forget_split", default="train", help="Its split; slices as in 'train[:100]' work.")
    parser.add_argument(
        "--forget_filter",
        metavar="EXPRESSION",
        help="Expression that is true for the rows that were forgotten, such as 'label == 3'; by default all rows.",
    )
    parser.add_argument("--allow", nargs="+", default=[], metavar="VALUE", help="Values that are not leaks.")


def _add_publication_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base_model",
        help="Hub id of the model before the run; by default the id that it was loaded from, if any.",
    )
    parser.add_argument(
        "--forget_disclosure",
        choices=["withheld", "size", "description"],
        help="What the card says about the forgotten data; by default the choice of the run.",
    )
    parser.add_argument(
        "--forget_description", help="What was forgotten, in your own words; by default the text of the run."
    )


def run_card(parsed: argparse.Namespace) -> None:
    """Prints or writes the card of a run."""
    from ..publishing.folder import Publication, card_of_run
    from ..runtime.files import check_new_file, replaced

    if parsed.output is not None:
        check_new_file(parsed.output)
    publication = Publication(parsed.repo_id, parsed.base_model, parsed.forget_disclosure, parsed.forget_description)
    card = card_of_run(parsed.path, publication)
    if parsed.output is None:
        print(card)
    else:
        with replaced(parsed.output) as written:
            card.save(written)


def run_push(parsed: argparse.Namespace) -> None:
    """Publishes the result of a run, or with `--dry_run` writes what would be published."""
    from ..publishing.contents.allow_list import check_entries
    from ..publishing.folder import Publication, save_published
    from ..publishing.push import push_folder_to_hub
    from ..report.report import load_report

    # Refuses a folder without a report before the rows are read.
    load_report(parsed.path)
    # Before the tokenizer is read: a pipe among its files would wait.
    check_entries(parsed.path)
    needles = _forget_needles(parsed, parsed.path)
    publication = Publication(
        parsed.repo_id,
        parsed.base_model,
        parsed.forget_disclosure,
        parsed.forget_description,
        parsed.gated_prompt,
        parsed.allow,
    )
    if parsed.dry_run is not None:
        trust = parsed.trust_remote_code
        written = save_published(parsed.path, parsed.dry_run, needles, publication, trust_remote_code=trust)
        print("\n".join([f"{parsed.dry_run} holds what would be published in {parsed.repo_id}:", *written]))
        return
    result = push_folder_to_hub(
        parsed.path,
        parsed.repo_id,
        needles=needles,
        publication=publication,
        trust_remote_code=parsed.trust_remote_code,
        private=not parsed.public,
        exist_ok=parsed.exist_ok,
        create_pr=parsed.create_pr,
        revision=parsed.revision,
        commit_message=parsed.commit_message,
        gated=parsed.gated,
    )
    print(result)


def run_check_card(parsed: argparse.Namespace) -> int:
    """Prints the traces of the forgotten rows and of this machine in a folder; returns 1 if there are any."""
    from ..publishing.card import static_text
    from ..publishing.leaks import find_leaks, needles_of_machine

    if not parsed.path.is_dir():
        raise FileNotFoundError(f"There is no folder {parsed.path}.")
    needles = _forget_needles(parsed, parsed.path) | needles_of_machine()
    leaks = find_leaks(parsed.path, needles, ignore=[static_text(), *parsed.allow])
    if not leaks:
        print(f"{parsed.path}: no traces of the forgotten data or of this machine in any byte.")
        return 0
    print("\n".join([f"{parsed.path}: {len(leaks)} traces.", *map(str, leaks)]))
    return 1


def run_squash_history(parsed: argparse.Namespace) -> None:
    """Prints which revisions hold the old weights, and with `--yes` squashes the history of the branch."""
    from ..publishing.history import squash_history

    print(squash_history(parsed.repo_id, branch=parsed.branch, dry_run=not parsed.yes))


def _forget_needles(parsed: argparse.Namespace, folder: Path) -> "Needles":
    """The values of the forgotten rows to search for: as texts and, with the folder's tokenizer, as token ids."""
    from transformers import AutoTokenizer

    from ..data.arguments import DataArguments
    from ..data.filters.forget_rows import split_forget_rows
    from ..data.sources import load_splits
    from ..publishing.leaks import needles_of_dataset
    from ..publishing.leaks.classes import class_names_of

    rows = load_splits(parsed.forget_file, {"forget": parsed.forget_split})["forget"]
    kept = None
    if parsed.forget_filter is not None:
        arguments = DataArguments(dataset_name=parsed.forget_file, forget_filter=parsed.forget_filter)
        rows, kept = split_forget_rows(rows, arguments)
    tokenizer = None
    if (folder / "tokenizer_config.json").exists():
        trust = getattr(parsed, "trust_remote_code", False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    return needles_of_dataset(
        rows,
        tokenizer=tokenizer,
        names=[Path(parsed.forget_file).name],
        class_names=class_names_of(folder),
        retain_dataset=kept,
    )
