# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A model card from a report, with nothing that tells which data were forgotten."""

from huggingface_hub import ModelCard, ModelCardData

from .report import STAGES, UnlearningReport, markdown_table


TAGS = ("machine-unlearning", "fisher-unlearning", "hf_deepclean")

# Of the settings only these: others may hold paths, ids or names that say where the data came from.
_SETTINGS = {
    "fisher_type": "labels of the Fisher information",
    "reset_value": "selected weights are reset to",
    "reset_scope": "scope",
    "num_train_epochs": "epochs of the repair",
    "max_steps": "steps of the repair, if above 0 instead of epochs",
    "learning_rate": "learning rate of the repair",
    "per_device_train_batch_size": "batch size of the repair",
    "gradient_accumulation_steps": "accumulated batches",
}

_CLAIM = (
    "This model was changed so that it no longer shows what it had learned from some of its training data, by "
    "[DeepClean](https://huggingface.co/papers/2311.10448) as implemented in `hf_deepclean`: the weights that matter "
    "more to the data to forget than to the data to keep were reset, and only they were trained again, on the data to "
    "keep. Unlearning of this kind is **approximate**: there is no formal guarantee, and nothing on this card is a "
    "proof of deletion."
)

_LIMITS = """- Stronger attacks than the one reported here exist.
- Further training can bring forgotten behaviour back.
- Copies of the model from before (earlier revisions, forks, quantised versions, caches) still hold everything.
- Whoever has the model from before can see which weights were reset.
- What the data to forget were, and how many, is left out of this card on purpose."""


def create_model_card(report: UnlearningReport) -> ModelCard:
    """
    Renders a plain model card of a cleaned model.

    It shows figures of all data as shares, those of the forgotten data in whole percent, and no counts of examples, no
    classes, no names of data sets and no paths. Licence, language and base model are the owner's to add.

    Args:
        report ([`UnlearningReport`]):
            The report of the run.

    Returns:
        [`~huggingface_hub.ModelCard`]: Its `data` are the metadata, `str(card)` is the content of a README.md.
    """
    adapter = report.settings.get("reset_scope") == "adapter"
    data = ModelCardData(library_name="peft" if adapter else "transformers", tags=list(TAGS))
    selection, integrity = report.selection, report.integrity
    share = 100 * selection.num_selected / selection.num_in_scope
    settings = [
        f"- {description}: `{report.settings[name]}`"
        for name, description in _SETTINGS.items()
        if name in report.settings
    ]
    sections = {
        f"# Cleaned {report.model_class}": _CLAIM,
        "## Results": f"{_results(report)}\n\n{_reading(report)}",
        "## How it was done": "\n".join(
            [
                f"- rule of selection: `{selection.rule}`",
                f"- weights reset: {selection.num_selected:,} of {selection.num_in_scope:,} in scope ({share:.2f} %)",
                *settings,
            ]
        ),
        "## What stayed as it was": (
            f"Outside the selection 0 of {integrity.num_frozen_weights:,} weights and 0 of "
            f"{integrity.num_buffer_entries:,} buffer entries changed. SHA-256 over all of them: "
            f"`{integrity.frozen_checksum}`."
        ),
        "## Limits": _LIMITS,
        "## Versions": ", ".join(f"{name} {number}" for name, number in report.versions.items()) + ".",
    }
    if integrity.num_base_weights is not None:
        sections["## What stayed as it was"] += f" Of the base 0 of {integrity.num_base_weights:,} weights changed."
    text = "\n\n".join(f"{title}\n\n{body}" for title, body in sections.items())
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _results(report: UnlearningReport) -> str:
    stages = [stage for stage in STAGES if stage in report.stages]
    columns = {stage: _figures(report, stage) for stage in stages}
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    rows = [[name, *(figures.get(name, "") for figures in columns.values())] for name in names]
    return markdown_table([STAGES[stage] for stage in stages], rows)


def _figures(report: UnlearningReport, stage: str) -> dict[str, str]:
    """Figures by name, with numbers in the place of the caller's names of evaluation sets."""
    result = report.stages[stage]
    evaluations = [split for split in result.splits if split.startswith("eval_")]
    public = {split.replace("_", " "): f"eval {number}" for number, split in enumerate(evaluations, 1)}
    figures = {}
    for name, value in result.figures().items():
        for split, replacement in public.items():
            if name.startswith(f"{split} "):
                name = replacement + name.removeprefix(split)
        figures[name] = _cell(name, value)
    return figures


def _cell(name: str, value: float) -> str:
    if any(word in name for word in ("accuracy", "TPR", "verbatim", "right")):
        # A share of few examples in tenths of a percent would tell how many they were.
        decimals = 0 if name.startswith("forget") or "membership" in name else 1
        return f"{100 * value:.{decimals}f} %"
    return f"{value:.2f}" if abs(value) < 10_000 else f"{value:.3g}"


def _reading(report: UnlearningReport) -> str:
    lines = []
    if "reference" in report.stages:
        lines.append(
            "The target of every figure is that of the reference, a model trained without the data to forget."
        )
    else:
        lines.append("No reference model, trained without the data to forget, was measured.")
    if report.stages["after_repair"].membership is None:
        lines.append("Membership of the forgotten data in the training data: not measured.")
    else:
        lines.append(
            "Membership AUC is the chance that a simple attack takes a forgotten example for training data rather "
            "than one that the model never saw; at 0.5 it cannot tell them apart."
        )
    if any(stage.startswith("control") for stage in report.stages):
        lines.append("The control resets and repairs as many weights drawn at random.")
    return " ".join(lines)
