# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Reads the metadata of the original model's card: a closed list of fields, each with values that the Hub takes."""

import codecs
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.utils import validate_repo_id


# https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr "
    "mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license "
    "fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma unknown other".split()
)
# ISO 639-1. Codes of three letters are taken by their form.
_LANGUAGES = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el "
    "en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu "
    "ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na "
    "nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so "
    "sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh "
    "zu".split()
)
_PIPELINES = frozenset(
    "any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation "
    "document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction "
    "image-segmentation image-text-to-text image-to-3d image-to-image image-to-text image-to-video keypoint-detection "
    "mask-generation multiple-choice object-detection other question-answering reinforcement-learning robotics "
    "sentence-similarity summarization table-question-answering table-to-text tabular-classification "
    "tabular-regression tabular-to-text text-classification text-generation text-ranking text-retrieval text-to-3d "
    "text-to-audio text-to-image text-to-speech text-to-video time-series-forecasting "
    "token-classification translation unconditional-image-generation video-classification video-text-to-text "
    "video-to-video visual-document-retrieval visual-question-answering voice-activity-detection "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection".split()
)
_RELATIONS = ("adapter", "merge", "quantized", "finetune")

# Fields that belong to the original model alone: its data, its results, and what the new card sets anew.
NOT_KEPT = frozenset(
    "datasets widget model-index new_version metrics eval_results co2_eq_emissions library_name unlearning model_name "
    "inference".split()
)

# A card of somebody else's may be made to take minutes. No card that people write comes near these.
_MAX_BYTES = 2**16
_MAX_TOKENS, _MAX_DEPTH = 10_000, 50
_MAX_VALUES = 200
_MAX_PROMPT = 20_000
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_MAX_LINE = 500
_LINK = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w.~%&=?#+:@,-]*)*|\w[\w.-]{0,99}")
# Tags that the Hub derives from fields, and that could name the data or the base.
_DERIVED_TAG = re.compile(r"(dataset|base_model|license|region|doi):", re.I)


class _Loader(yaml.BaseLoader):
    """Makes strings of all scalars, so that the language `no` is no truth value, and gives up early."""

    def fetch_more_tokens(self) -> None:
        if max(self.flow_level, len(self.indents)) > _MAX_DEPTH or self.tokens_taken > _MAX_TOKENS:
            raise yaml.YAMLError
        super().fetch_more_tokens()


@dataclass(frozen=True)
class BaseCard:
    """
    What the new card takes over from the card of the original model.

    Args:
        fields (`dict[str, Any]`): The fields, all JSON types.
        left_out (`tuple[str, ...]`): Why the other fields are left out, one sentence each.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "BaseCard":
        """
        Reads a README.md. Never raises: what cannot be used is left out. At most 64 kB of it are read, and metadata
        of more than a few thousand values or 50 levels are left out.

        Args:
            path (`str`):
                The file. A byte order mark, any line ends, UTF-16 and damaged UTF-8 are accepted.
        """
        try:
            if not os.path.isfile(path):
                return cls({}, _told(path, ["the metadata, because it is no file that can be read"]))
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES)
                is_whole = not file.read(1)
            text = _decode(content).replace("\r\n", "\n").replace("\r", "\n")
            block = _FRONT_MATTER.match(text)
            if block is None:
                where = "last line `---`" if is_whole else f"last line `---` in their first {_MAX_BYTES // 1024} kB"
                has_begun = text.lstrip().startswith("---")
                return cls({}, _told(path, [f"the metadata, which have no {where}"] if has_begun else []))
            return cls.of(yaml.load(block[1] or "", Loader=_Loader), path)  # noqa: S506
        except Exception as error:
            # A card is whatever somebody has written, and no card may end a run.
            return cls({}, _told(path, [f"the metadata, which cannot be read ({type(error).__name__})"]))

    @classmethod
    def of(cls, found: Any, path: str | os.PathLike[str] | None = None) -> "BaseCard":
        """
        Takes over the fields that the Hub takes. Never raises.

        Args:
            found (`Mapping[str, Any]`):
                The metadata. `None` and `""` stand for none.
            path (`str`, *optional*):
                The file of the card. A `base_model` that is a path beside it is no id.
        """
        if found in (None, ""):
            return cls()
        if not isinstance(found, Mapping):
            return cls({}, _told(path, ["the metadata, which are no mapping"]))
        fields: dict[str, Any] = {}
        folder = None if path is None else Path(path).parent
        left_out = [name for name in found if name not in _FIELDS and name not in NOT_KEPT]
        causes = [f"{_listed(left_out)}, which the new card does not take over"] if left_out else []
        wrong = []
        for name, check in (_FIELDS | {"base_model": partial(_base_models, folder=folder)}).items():
            if found.get(name) in (None, "", [], "null", "~"):
                continue
            value = check(found[name])
            if value is None:
                wrong.append(name)
            else:
                fields[name] = value
        if isinstance(fields.get("license"), str) and fields["license"] not in _LICENSES:
            # The Hub takes a licence that is not on its list by its name.
            fields = {"license": "other", "license_name": fields["license"]} | fields | {"license": "other"}
        if "base_model" not in fields:
            fields.pop("base_model_relation", None)
        if wrong:
            causes.append(f"{_listed(wrong)}, whose values the Hub does not take")
        return cls(fields, _told(path, causes))


def is_hub_id(name: Any, *folders: Path) -> bool:
    """
    Whether a name can be the id of a model on the Hub, and no local path.

    Args:
        name (`str`):
            The name.
        folders (`Path`):
            Folders in which it must not exist, because it is a path there.
    """
    try:
        validate_repo_id(name)
    except (ValueError, TypeError):
        return False
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) or re.search(r"checkpoint-\d+$", name):
        return False
    return not any((folder / name).exists() for folder in folders)


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    # Values with a replaced letter do not pass the checks.
    return content.decode("utf-8-sig", "replace")


def _told(path: str | os.PathLike[str] | None, causes: list[str]) -> tuple[str, ...]:
    """At most one sentence."""
    if not causes:
        return ()
    where = "the card of the original model" if path is None else os.fspath(path)
    return (f"The card of the cleaned model goes without these parts of {where}: {'; '.join(causes)}.",)


def _listed(names: list[Any]) -> str:
    shown = ", ".join(f"{str(name)!r:.60}" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _strings(value: Any) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    return values if len(values) <= _MAX_VALUES and all(isinstance(one, str) for one in values) else None


def _each(check: Callable[[str], str | None], *, always_list: bool = False) -> Callable[[Any], Any]:
    """A check of one string or a list of them, all of which must pass."""

    def check_all(value: Any) -> Any:
        values = _strings(value)
        checked = [None] if values is None else [check(one) for one in values]
        if None in checked:
            return None
        return checked if always_list or isinstance(value, list) else checked[0]

    return check_all


def _matching(pattern: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        fits = isinstance(value, str) and len(value) <= _MAX_LINE and re.fullmatch(pattern, value)
        return value if fits else None

    return check


def _license(value: Any) -> str | list[str] | None:
    """Licences of the Hub's list, or the name of one other licence."""
    if isinstance(value, list):
        return _each(lambda one: one.lower() if one.lower() in _LICENSES else None)(value)
    name = re.sub(r"[ _]+", "-", value.strip(" ").lower()) if isinstance(value, str) else ""
    return name if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,99}", name) else None


def _language(value: str) -> str | None:
    first, *further = value.split("-")
    first = first.lower()
    known = first in _LANGUAGES or re.fullmatch("[a-z]{3}", first) or value in ("code", "multilingual")
    return "-".join([first, *further]) if known and all(re.fullmatch("[A-Za-z0-9]{2,8}", p) for p in further) else None


def _tags(value: Any) -> list[str] | None:
    values = _strings(value)
    if values is None:
        return None
    tags = [tag for tag in values if not _DERIVED_TAG.match(tag)]
    fits = all(tag.isprintable() and 0 < len(tag) <= 100 and not re.search(r"[<>/\\\ufffd]", tag) for tag in tags)
    return tags if fits else None


def _base_models(value: Any, folder: Path | None = None) -> str | list[str] | None:
    folders = (Path(),) if folder is None else (Path(), folder, folder.parent)
    return _each(lambda name: name if is_hub_id(name, *folders) else None)(value)


def _prompt(value: Any) -> str | None:
    """A text for people: no HTML, no line that ends the metadata, no invisible characters."""
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _MAX_PROMPT:
        return None
    lines = value.strip().split("\n")
    visible = (
        all(letter.isprintable() or letter == "\t" for line in lines for letter in line) and "\ufffd" not in value
    )
    marked = re.search(r"<[A-Za-z/!?]|&\w+;|&#|javascript:", value, re.I)
    return value.strip() if visible and not marked and not any(re.fullmatch(r"\s*---+\s*", x) for x in lines) else None


def _line(value: Any) -> str | None:
    text = _prompt(value)
    return text if text is not None and "\n" not in text and len(text) <= 300 else None


# The fields that are taken over. A check returns the value to publish, or None.
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "license": _license,
    "license_name": _matching(r"[A-Za-z0-9][\w .+-]{0,99}"),
    "license_link": _matching(_LINK.pattern),
    "language": _each(_language),
    "pipeline_tag": lambda value: value if isinstance(value, str) and value in _PIPELINES else None,
    "tags": _tags,
    "thumbnail": _matching(_LINK.pattern),
    "base_model": _base_models,
    "base_model_relation": lambda value: value if value in _RELATIONS else None,
    "extra_gated_heading": _line,
    "extra_gated_prompt": _prompt,
    "extra_gated_description": _prompt,
    "extra_gated_button_content": _line,
}
