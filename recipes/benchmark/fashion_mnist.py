# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST, from its own files or from a copy in the format of `datasets`."""

import gzip
from functools import cache
from pathlib import Path

import numpy as np
from datasets import DatasetDict, load_dataset, load_from_disk


# Folder of Debian's package dataset-fashion-mnist.
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
# Mean and standard deviation of the pixels of the training images.
FASHION_MNIST_MEAN, FASHION_MNIST_STD = 0.2860, 0.3530


@cache
def read_fashion_mnist(folder: str, dataset: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns training images, training labels, test images and test labels."""
    if dataset is not None:
        path = Path(dataset)
        is_saved = (path / "dataset_dict.json").exists()
        splits: DatasetDict = load_from_disk(path) if is_saved else load_dataset(dataset)
        read = [
            (np.stack([np.asarray(image) for image in splits[name]["image"]]), np.asarray(splits[name]["label"]))
            for name in ("train", "test")
        ]
        return *read[0], *read[1]
    names = [f"{part}-{content}-ubyte.gz" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")]
    missing = [name for name in names if not (Path(folder) / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"Fashion-MNIST is read from {folder}, which lacks {', '.join(missing)}. On Debian and Ubuntu run "
            "`apt-get install dataset-fashion-mnist`. Elsewhere name a folder with its four idx files with "
            "--fashion_mnist_dir, or a copy in the format of `datasets` with --fashion_mnist_dataset."
        )
    return tuple(_read_idx(Path(folder) / name) for name in names)


def _read_idx(path: Path) -> np.ndarray:
    """Reads an array of bytes, whose header holds the number of axes and their lengths."""
    content = gzip.decompress(path.read_bytes())
    num_axes = content[3]
    shape = np.frombuffer(content, ">i4", num_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)
