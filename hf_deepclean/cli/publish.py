# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The command `hf-deepclean`: the same code as the recipes, for a model and data of your own."""

import argparse
import json
from pathlib import Path
from typing import Any


def run_report(parsed: argparse.Namespace) -> int:
    from ..report.report import load_report
    from ..report.summary import summarize_reports

    reports = [load_report(path) for path in parsed.paths]
    if parsed.json:
        records = [report.to_dict() for report in reports]
        print(json.dumps(records[0] if len(records) == 1 else records, indent=2))
    else:
        print(reports[0] if len(reports) == 1 else summarize_reports(reports))
    return 0


def add_forget_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forget_file",
        "--forget-file",
        required=True,
        metavar="FILE",
        help="the forgotten rows: a csv, tsv, json, jsonl, parquet, txt or arrow file, a folder, or a data set's id",
    )
    parser.add_argument("--forget_split", default="train", help="split of it; slices as in 'train[:100]' work")
    parser.add_argument(
        "--forget_filter", metavar="EXPRESSION", help="which of its rows were forgotten, such as 'label == 3'"
    )
    parser.add_argument("--allow", nargs="+", default=[], metavar="VALUE", help="values that are no leaks")


def add_publication_arguments(parser: argparse.ArgumentParser) -> None:
    from_run = "by default as the run was started"
    parser.add_argument("--base_model", help="Hub id of the model from before; by default what was loaded from there")
    parser.add_argument(
        "--forget_disclosure", choices=["withheld", "size", "description"], help=f"what the card tells; {from_run}"
    )
    parser.add_argument("--forget_description", help=f"what was forgotten, in your words; {from_run}")


def run_card(parsed: argparse.Namespace) -> int:
    from ..publishing.folder import Publication, card_of_run
    from ..runtime.files import check_new_file

    if parsed.output is not None:
        check_new_file(parsed.output)
    publication = Publication(parsed.repo_id, parsed.base_model, parsed.forget_disclosure, parsed.forget_description)
    card = card_of_run(parsed.path, publication)
    if parsed.output is None:
        print(card)
    else:
        card.save(parsed.output)
    return 0


def run_push(parsed: argparse.Namespace) -> int:
    from ..publishing.folder import Publication, save_published
    from ..publishing.push import push_folder_to_hub
    from ..report.report import load_report

    # Refused before the rows are read.
    load_report(parsed.path)
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
        written = save_published(parsed.path, parsed.dry_run, needles, publication)
        print("\n".join([f"{parsed.dry_run} holds what would be published in {parsed.repo_id}:", *written]))
        return 0
    result = push_folder_to_hub(
        parsed.path,
        parsed.repo_id,
        needles=needles,
        publication=publication,
        private=not parsed.public,
        exist_ok=parsed.exist_ok,
        create_pr=parsed.create_pr,
        revision=parsed.revision,
        commit_message=parsed.commit_message,
        gated=parsed.gated,
    )
    print(result)
    return 0


def run_check_card(parsed: argparse.Namespace) -> int:
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


def run_squash_history(parsed: argparse.Namespace) -> int:
    from ..publishing.history import squash_history

    print(squash_history(parsed.repo_id, branch=parsed.branch, dry_run=not parsed.yes))
    return 0


def _forget_needles(parsed: argparse.Namespace, folder: Path) -> Any:
    """What of the forgotten rows must not be found, as texts and, with the folder's tokenizer, as tokens."""
    from transformers import AutoTokenizer

    from ..data.arguments import DataArguments
    from ..data.filters import split_forget_rows
    from ..data.sources import load_splits
    from ..publishing.leaks import needles_of_dataset

    rows = load_splits(parsed.forget_file, {"forget": parsed.forget_split})["forget"]
    if parsed.forget_filter is not None:
        arguments = DataArguments(dataset_name=parsed.forget_file, forget_filter=parsed.forget_filter)
        rows, _ = split_forget_rows(rows, arguments)
    tokenizer = None
    if (folder / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return needles_of_dataset(rows, tokenizer=tokenizer, names=[Path(parsed.forget_file).name])
