# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
# /// script
# dependencies = ["hf-deepclean[demo,peft]"]
# ///
"""
Makes the cards in `model_cards/`: runs five recipes with all measurements, and keeps the files that they would publish
except for weights, configurations and tokenizers. Takes half an hour on two cores; finished runs are not repeated.

```shell
python recipes/model_cards.py --output_dir outputs/cards
```

With `--render` nothing runs: the cards and pictures are made again from the reports beside them, which lose what this
version no longer publishes.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hf_deepclean import PublicReport, UnlearningCard, UnlearningReport, save_plots


FOLDER = Path(__file__).parent
CARDS = FOLDER.parent / "model_cards"

# Recipe, configuration, and thresholds of the sweep, by the name of the card.
RUNS = {
    "digits-random": ("image_classification", "image_classification_random", "0.5 0.8 1 1.25 2 5"),
    "digits-class": ("image_classification", "image_classification_class", "0.5 1 2 5 10 20"),
    "text-classifier": ("text_classification", "text_classification_random", "0.5 0.8 1 1.25 2 5"),
    "biographies": ("causal_lm", "causal_lm", "0.1 0.3 1 3 10"),
    "biographies-adapter": ("lora_causal_lm", "lora_causal_lm", "0.1 0.3 1 3 10"),
}
OPTIONS = "--train_reference true --random_mask_control true --fine_tuning_control true --relearning_steps 32 --seed 0"

# The picture of the main page, and the run that it is of.
PLANE, PLANE_OF = "fisher_plane.png", "digits-class"

# Values that differ between runs without meaning.
MASK = "masked"
_VOLATILE = {
    r"SHA-256 of all above: [0-9a-f]{64}": f"SHA-256 of all above: {MASK}",
    r"commitment: '?[0-9a-f]{64}'?": f"commitment: {MASK}",
    r"keyed commitment, `[0-9a-f]{64}`": f"keyed commitment, `{MASK}`",
    r"; python .*": f"; {MASK} versions.",
    r"  hf_deepclean: .*": f"  hf_deepclean: {MASK}",
}


def mask_card(card: str) -> str:
    """Masks the values in a card that differ between runs."""
    for pattern, replacement in _VOLATILE.items():
        card = re.sub(pattern, replacement, card)
    return card


def mask_report(record: dict[str, Any]) -> dict[str, Any]:
    """Masks the values in a public report that differ between runs."""
    return record | {"commitment": "0" * 64, "versions": {"python": MASK, "hf-deepclean": MASK}}


def render(name: str) -> str:
    """Renders the card of a report in `model_cards/`."""
    report = PublicReport.load(CARDS / name / "report.json")
    plots = [path.name for path in sorted((CARDS / name / "plots").iterdir())]
    return mask_card(str(UnlearningCard.from_report(report, repo_id=f"me/clean-{name}", plots=plots)))


def run(name: str, output: Path) -> Path:
    """Runs a recipe if it has not run yet, and returns the folder with the files that it would publish."""
    recipe, config, gammas = RUNS[name]
    public = output / f"{name}-public"
    if not public.exists():
        command = [sys.executable, str(FOLDER / f"{recipe}.py")]
        command += ["--config", str(FOLDER / "configs" / f"{config}.yaml"), "--output_dir", str(output / name)]
        command += ["--public_dir", str(public), *OPTIONS.split()]
        subprocess.run([*command, "--gamma_sweep", *gammas.split()], check=True)
    return public


def keep(name: str, public: Path) -> None:
    """Replaces card, report and pictures in `model_cards/`."""
    target = CARDS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(public / "plots", target / "plots")
    # Without the digest of the file, which masking would break.
    record = mask_report(PublicReport.load(public / "report.json").to_dict())
    (target / "report.json").write_text(json.dumps(record, indent=2) + "\n")
    (target / "README.md").write_text(render(name))


def keep_plane(folder: Path) -> None:
    """Replaces the picture of the main page: the plane of a run, which its withheld card does not show."""
    report = PublicReport.of(UnlearningReport.load(folder / "report.json"), "size")
    with tempfile.TemporaryDirectory() as directory:
        save_plots(report, directory)
        shutil.copy(Path(directory) / PLANE, CARDS / PLANE)


def render_again(name: str) -> None:
    """Makes report, card and pictures in `model_cards/` again from the report that is there."""
    target = CARDS / name
    report = PublicReport.load(target / "report.json").as_withheld()
    shutil.rmtree(target)
    save_plots(report, target / "plots")
    (target / "report.json").write_text(json.dumps(mask_report(report.to_dict()), indent=2) + "\n")
    (target / "README.md").write_text(render(name))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The cards in model_cards/, from real runs of the recipes.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/cards"), help="Folder of the runs.")
    parser.add_argument("--names", nargs="+", choices=list(RUNS), default=list(RUNS), help="Only these cards.")
    parser.add_argument("--render", action="store_true", help="Only render again what is there.")
    return parser


def main(args: argparse.Namespace) -> None:
    for name in args.names:
        if args.render:
            render_again(name)
            continue
        keep(name, run(name, args.output_dir))
        if name == PLANE_OF:
            keep_plane(args.output_dir / name)
        print(f"{CARDS / name}: card, report and pictures of the run")


if __name__ == "__main__":
    main(make_parser().parse_args())
