# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Gives equal rows another form, and other rows the same: overlaps, commitments and fingerprints go by content."""

import io
import shutil

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Array2D, Array3D, ClassLabel, Dataset, Features, Sequence, Value
from PIL import Image, PngImagePlugin

from hf_deepclean import ForgetCommitment
from hf_deepclean.data.digests import dataset_fingerprint
from hf_deepclean.data.overlaps.checks import check_overlaps
from tests.data.examples import Stream
from tests.tiny import Rows


SIZE = 6
GENERATOR = np.random.default_rng(0)
PIXELS = [GENERATOR.integers(0, 255, (9, 7, 3), dtype=np.uint8) for _ in range(SIZE)]
TEXTS = [f"Person {place} lives in house {place * 7} of the long street" for place in range(SIZE)]
VALUES = [[place + 0.5, place / 4, -1.5 * place] for place in range(SIZE)]
LABELS = [place % 3 for place in range(SIZE)]
IDS = [[5, 6, 7, 8 + place][: 3 + place % 2] + [place] for place in range(SIZE)]
LISTS = [{"label": label, "text": text, "values": row} for label, text, row in zip(LABELS, TEXTS, VALUES, strict=True)]


def texts(label="int64", text="string", number="float64", **columns):
    found = {"text": TEXTS, "label": LABELS, "values": VALUES}
    kinds = {"text": Value(text), "label": Value(label), "values": Sequence(Value(number))}
    return Dataset.from_dict(found, features=Features(kinds)) if not columns else Dataset.from_dict(found | columns)


def arrow(text, values):
    """The same rows, with texts and values stored in other arrow types."""
    table = pa.table({"text": pa.array(TEXTS).cast(text), "label": LABELS, "values": pa.array(VALUES, values)})
    return Dataset(datasets.table.InMemoryTable(table))


SAME_TEXTS = {
    "labels of 32 bits": lambda: texts(label="int32"),
    "labels of 8 bits": lambda: texts(label="uint8"),
    "labels with a point": lambda: texts(label="float64"),
    "single precision": lambda: texts(number="float32"),
    "classes": lambda: texts().cast_column("label", ClassLabel(names=["a", "b", "c"])),
    "lists of Python": lambda: Rows(LISTS),
    "tuples": lambda: Rows([row | {"values": tuple(row["values"])} for row in LISTS]),
    "another order of keys": lambda: Rows([dict(reversed(row.items())) for row in LISTS]),
    "values of numpy": lambda: Rows(
        [{"text": np.str_(row["text"]), "label": np.int16(row["label"]), "values": row["values"]} for row in LISTS]
    ),
    "tensors": lambda: Rows(
        [row | {"label": torch.tensor(row["label"]), "values": torch.tensor(row["values"])} for row in LISTS]
    ),
    "torch format": lambda: texts().with_format("torch"),
    "numpy format": lambda: texts().with_format("numpy"),
    "pandas format": lambda: texts().with_format("pandas"),
    "missing values": lambda: Rows([row | {"note": None} for row in LISTS]),
    "large strings": lambda: arrow(pa.large_string(), pa.large_list(pa.float64())),
    "a dictionary of texts": lambda: arrow(pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float32())),
    "lists of fixed size": lambda: arrow(pa.string(), pa.list_(pa.float16(), 3)),
    "a random transform": lambda: texts().with_transform(lambda rows: {"x": torch.rand(len(rows["text"]))}),
    "chosen rows": lambda: datasets.concatenate_datasets([texts(), texts()]).select(range(SIZE, 2 * SIZE)),
    "a concatenation": lambda: datasets.concatenate_datasets([texts().select([0, 1]), texts().select(range(2, SIZE))]),
}
# What commitments and fingerprints must tell, and the comparison of data sets must not.
OTHER_COLUMNS = {
    "an extra column": lambda: texts(source=["a", "b"] * 3),
    "numbered rows": lambda: texts(id=[*range(10, 10 + SIZE)]),
    "an index of pandas": lambda: Dataset.from_pandas(pd.DataFrame(LISTS, index=[*range(20, 20 + SIZE)])),
    "another name of the labels": lambda: texts().rename_column("label", "labels"),
}
STREAMS = {"a stream": lambda: texts().to_iterable_dataset(), "a stream of Python": lambda: Stream(LISTS)}


def file(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def pictures(cells, feature=None):
    features = Features({"image": feature or datasets.Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": cells, "label": LABELS}, features=features)


def embedded(content):
    return pictures([{"bytes": content(pixels), "path": None} for pixels in PIXELS])


def folder(path, name="picture{}.png", **options):
    """Pictures in files beside the data set, which names them."""
    path.mkdir(exist_ok=True)
    for place, pixels in enumerate(PIXELS):
        path.joinpath(name.format(place)).write_bytes(file(pixels, **options))
    return pictures([str(path / name.format(place)) for place in range(SIZE)])


def moved(path):
    folder(path / "one")
    shutil.move(path / "one", path / "two")
    return pictures([str(path / "two" / f"picture{place}.png") for place in range(SIZE)])


def with_notes(pixels):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "taken by nobody")
    return file(pixels, pnginfo=notes, compress_level=1)


def turned(pixels):
    """Stored on its side, with the note of the camera that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(np.ascontiguousarray(np.rot90(pixels)), exif=exif)


def opaque(pixels):
    return file(Image.fromarray(pixels).convert("RGBA"))


def in_palette(pixels):
    return file(Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=256))


SAME_PICTURES = {
    "other file names": lambda path: folder(path / "other", "p{}.image"),
    "a moved folder": moved,
    "embedded bytes": lambda path: embedded(file),
    "BMP": lambda path: embedded(lambda pixels: file(pixels, "BMP")),
    "lossless WebP": lambda path: embedded(lambda pixels: file(pixels, "WEBP", lossless=True)),
    "TIFF in a folder": lambda path: folder(path / "tiff", "{}.tiff", kind="TIFF"),
    "other metadata": lambda path: embedded(with_notes),
    "a turned camera": lambda path: embedded(turned),
    "an opaque channel": lambda path: embedded(opaque),
    "a palette": lambda path: embedded(in_palette),
    "arrays": lambda path: pictures([pixels.tolist() for pixels in PIXELS], Array3D((9, 7, 3), "uint8")),
    "lists of 64 bits": lambda path: pictures(
        [pixels.tolist() for pixels in PIXELS], Sequence(Sequence(Sequence(Value("int64"))))
    ),
    "Pillow": lambda path: Rows(
        [{"image": Image.fromarray(p), "label": label} for p, label in zip(PIXELS, LABELS, strict=True)]
    ),
    "tensors": lambda path: Rows(
        [{"image": torch.tensor(p), "label": label} for p, label in zip(PIXELS, LABELS, strict=True)]
    ),
}


def shares_all(one, other):
    """Whether the comparison of data sets finds that all rows of the one are in the other."""
    try:
        check_overlaps({"forget": one, "retain": other})
    except ValueError as error:
        return f"{SIZE} of {SIZE} rows of `forget_dataset` are in `retain_dataset` too" in str(error)
    return False


def missed(expected, forms, *, overlaps=True, order_matters=True):
    """The forms of equal rows that are taken for other rows: by name, whether they were."""
    commitment, fingerprint = ForgetCommitment.of(expected), dataset_fingerprint(expected)
    found = {}
    for name, form in forms.items():
        same = form()
        found[f"{name}, commitment"] = not commitment.verify(same)
        found[f"{name}, fingerprint"] = dataset_fingerprint(same) != fingerprint
        if overlaps:
            found[f"{name}, overlap"] = not (shares_all(expected, same) and shares_all(same, expected))
    return found


def test_equal_rows_are_equal_in_every_form(attack):
    found = missed(texts(), SAME_TEXTS) | missed(texts(), STREAMS, overlaps=False)
    assert not attack("equal rows in another form", found)


def test_equal_pictures_are_equal_in_every_form(attack, tmp_path):
    forms = {name: lambda form=form: form(tmp_path) for name, form in SAME_PICTURES.items()}
    expected = folder(tmp_path / "folder")
    found = missed(expected, forms)
    stream = {"a stream": lambda: folder(tmp_path / "folder").to_iterable_dataset()}
    assert not attack("equal pictures in another form", found | missed(expected, stream, overlaps=False))


def tokens(padding=0, mask=True, **columns):
    rows = {"input_ids": [[*row, *[0] * padding] for row in IDS], "labels": LABELS}
    masks = {"attention_mask": [[1] * len(row) + [0] * padding for row in IDS]} if mask else {}
    return Dataset.from_dict(rows | masks | columns)


def test_rows_that_reach_the_model_alike_are_found_in_several_data_sets(attack):
    measured = GENERATOR.normal(size=(SIZE, 4, 4)).astype(np.float32)
    stored = {kind: Dataset.from_dict({"x": measured.tolist()}, Features({"x": Array2D((4, 4), kind)})) for kind in
              ("float16", "float32", "float64")}  # fmt: skip
    pairs = {name: (texts(), form()) for name, form in OTHER_COLUMNS.items()} | {
        "padding": (tokens(), tokens(padding=4)),
        "padding, and no mask beside it": (tokens(padding=4), tokens(mask=False)),
        "half precision": (stored["float32"], stored["float16"]),
        "half precision of double": (stored["float16"], stored["float64"]),
        "double precision": (stored["float64"], stored["float32"]),
        "half precision, tensors": (
            Rows([{"x": torch.tensor(row, dtype=torch.float16)} for row in measured]),
            Rows([{"x": row} for row in measured]),
        ),
    }
    found = {name: not (shares_all(*pair) and shares_all(*reversed(pair))) for name, pair in pairs.items()}
    assert not attack("rows that reach the model alike", found)


def test_texts_that_look_alike_are_told(attack, caplog):
    long = "Zoë Müller's café opened in 1998 near the old bridge of the small town where she was born"
    short = "Zoë Müller"
    found = {}
    for text in (long, short):
        written = {
            "decomposed letters": "Zoe\u0308 Mu\u0308ller" + text[10:],
            "spaces at the end": text + "  \n",
            "hard spaces": text.replace(" ", "\u00a0"),
            "an invisible space": text.replace("ll", "l\u200bl"),
            "wide letters": text.replace("M", "\uff2d"),
        }
        for name, other in written.items():
            caplog.clear()
            rows = [Dataset.from_dict({"text": [one], "label": [0]}) for one in (text, other)]
            check_overlaps({"forget": rows[0], "retain": rows[1]})
            found[f"{name} in {len(text)} letters"] = "have a near-duplicate" not in caplog.text
    assert not attack("texts that look alike are told", found)


def test_pictures_that_look_alike_are_told(attack, tmp_path, caplog):
    smooth = [Image.fromarray(pixels).resize((70, 90), Image.Resampling.BICUBIC) for pixels in PIXELS]
    written = {
        "JPEG": lambda image: file(image, "JPEG"),
        "JPEG of a press": lambda image: file(image.convert("CMYK"), "JPEG"),
        "WebP": lambda image: file(image, "WEBP", quality=80),
        "grey": lambda image: file(image.convert("L")),
        "half transparent": lambda image: file(Image.merge("RGBA", [*image.split(), Image.new("L", image.size, 99)])),
        "smaller": lambda image: file(image.resize((35, 45), Image.Resampling.BOX)),
        "darker": lambda image: file(image.point(lambda value: value // 2)),
        "few colours": lambda image: file(image.quantize(128)),
    }

    def stored(name, write):
        (tmp_path / name).mkdir()
        for place, image in enumerate(smooth):
            (tmp_path / name / str(place)).write_bytes(write(image))
        return pictures([str(tmp_path / name / str(place)) for place in range(SIZE)])

    forget, found = stored("forget", file), {}
    for name, write in written.items():
        caplog.clear()
        check_overlaps({"forget": forget, "retain": stored(name, write)})
        found[name] = f"{SIZE} of {SIZE} rows of `forget_dataset` have a near-duplicate" not in caplog.text
    # Told is what differs less than a picture that is saved again.
    assert attack("pictures that look alike are told", found) == ["smaller", "few colours"]


def changed_file(path, content):
    """A data set whose picture was replaced under the same name."""
    dataset = folder(path)
    path.joinpath("picture0.png").write_bytes(content)
    return dataset


def one_byte(content):
    return content[:60] + bytes([content[60] ^ 1]) + content[61:]


def test_other_rows_are_other_rows(attack, tmp_path):
    pixel, commitments, prints = PIXELS[0].copy(), {}, {}
    pixel[3, 3, 1] ^= 1
    others = (
        {
            "one letter": (
                texts(),
                texts(text="string").map(
                    lambda row, place: {"text": row["text"] + "." * (place == 2)}, with_indices=True
                ),
            ),  # fmt: skip
            "labels swapped": (
                texts(),
                Rows([row | {"label": LISTS[place ^ 1]["label"]} for place, row in enumerate(LISTS)]),
            ),  # fmt: skip
            "a row twice": (texts(), texts().select([*range(SIZE), 0])),
            "a row for another": (texts().select([0, 0, 1]), texts().select([0, 1, 1])),
            "a row dropped": (texts(), texts().select(range(1, SIZE))),
            "the last digit": (
                texts(),
                Rows([row | {"values": [np.nextafter(row["values"][0], 9), *row["values"][1:]]} for row in LISTS]),
            ),  # fmt: skip
        }
        | {name: (texts(), form()) for name, form in OTHER_COLUMNS.items()}
    )
    for name, (one, other) in others.items():
        commitments[name] = ForgetCommitment.of(one).verify(other)
        prints[name] = dataset_fingerprint(one) == dataset_fingerprint(other)
    dataset = folder(tmp_path / "pictures")
    commitment, fingerprint = ForgetCommitment.of(dataset), dataset_fingerprint(dataset)
    first = file(PIXELS[0])
    for name, content in {
        "one pixel": file(pixel),
        "one byte": one_byte(first),
        "half": first[: len(first) // 2],
    }.items():
        replaced = changed_file(tmp_path / "pictures", content)
        commitments[f"{name} of a picture"] = commitment.verify(replaced)
        prints[f"{name} of a picture"] = dataset_fingerprint(replaced) == fingerprint
    prints["another order"] = dataset_fingerprint(texts()) == dataset_fingerprint(texts().select([1, 0, 2, 3, 4, 5]))
    found = {f"{name}, commitment": value for name, value in commitments.items()}
    assert not attack("other rows for the same", found | {f"{name}, fingerprint": v for name, v in prints.items()})
    assert not commitments["another name of the labels"]


def test_a_file_that_is_gone_is_told_by_the_place_of_its_row(tmp_path):
    dataset = folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "picture2.png").unlink()
    for reading in (dataset_fingerprint, ForgetCommitment.of):
        with pytest.raises(ValueError, match="^Row 2 of the data set cannot be read.*FileNotFoundError"):
            reading(dataset)
