# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Decodes pictures and sounds, so that file names, formats and metadata do not count."""

import wave
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from datasets.utils.file_utils import xopen
from PIL import ExifTags, Image, ImageOps


# As they are in the arrays that Pillow makes of them.
_PLAIN_MODES = ("L", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# Another mode that shows the same pixels. The others hold more than red, green and blue.
_SAME_PIXELS = {"1": "L", "LA": "RGBA", "La": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}


def is_media(value: Any) -> bool:
    """Whether a value is a file of a picture or a sound, named or embedded, or what a data set decodes it to."""
    if isinstance(value, Mapping):
        return value.keys() == {"bytes", "path"} or value.keys() - {"path"} == {"array", "sampling_rate"}
    return isinstance(value, Image.Image) or hasattr(value, "get_all_samples")


def decoded(value: Any, *, all_frames: bool) -> Any:
    """
    The content of a picture or sound. Of a file that can be decoded as neither its bytes are the content.

    Args:
        value (`dict`, `PIL.Image.Image` or `AudioDecoder`):
            A value for which [`is_media`] holds. A file that is not embedded is read.
        all_frames (`bool`):
            Whether all frames of an animation count, or the first.

    Returns:
        `np.ndarray` of shape (height, width) or (height, width, channels), a list of them, `dict` of a sound with
        `"samples"` and `"rate"`, `bytes`, or `None` for an empty cell.

    Raises:
        `OSError`: If the file cannot be read.
    """
    if isinstance(value, Image.Image):
        return _frames(value, all_frames)
    value = getattr(value, "_hf_encoded", None) or value
    if not isinstance(value, Mapping):
        samples = value.get_all_samples()
        return _sound(samples.data.numpy(), samples.sample_rate)
    if "array" in value:
        return _sound(np.asarray(value["array"]), value["sampling_rate"])
    content = value["bytes"]
    if content is None:
        if value["path"] is None:
            return None
        path = str(value["path"])
        with xopen(path, "rb") if "://" in path else Path(path).open("rb") as file:
            content = file.read()
    try:
        return _decoded_sound(content) if content[8:12] == b"WAVE" else _decoded_picture(content, all_frames)
    except Exception:
        # Decoders fail in any way on a damaged file.
        return content


def _decoded_picture(content: bytes, all_frames: bool) -> Any:
    with Image.open(BytesIO(content)) as image:
        # As `datasets.Image` turns pictures that were taken with the camera held upright.
        if image.getexif().get(ExifTags.Base.Orientation) is not None:
            return _frames(ImageOps.exif_transpose(image), all_frames)
        return _frames(image, all_frames)


def _frames(image: Image.Image, all_frames: bool) -> Any:
    number = getattr(image, "n_frames", 1) if all_frames else 1
    if number == 1:
        return _pixels(image)
    shown, frames = image.tell(), []
    for place in range(number):
        image.seek(place)
        frames.append(_pixels(image))
    image.seek(shown)
    return frames


def _pixels(image: Image.Image) -> Any:
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    image = image.convert(_SAME_PIXELS[image.mode]) if image.mode in _SAME_PIXELS else image
    pixels = np.asarray(image)
    return pixels if image.mode in _PLAIN_MODES else {"mode": image.mode, "pixels": pixels}


def _decoded_sound(content: bytes) -> Any:
    """Samples as every decoder gives them. Of other files than 16-bit WAV they depend on the decoder."""
    with wave.open(BytesIO(content)) as file:
        if file.getsampwidth() != 2:
            return content
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return _sound(samples.T.astype(np.float32) / 2**15, file.getframerate())


def _sound(samples: np.ndarray, rate: int) -> dict[str, Any]:
    return {"samples": samples[0] if samples.ndim == 2 and len(samples) == 1 else samples, "rate": rate}
