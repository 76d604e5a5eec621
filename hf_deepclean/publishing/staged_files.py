# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Files that were searched and checked, with their digests, so that nothing else is sent."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path


# Larger files are sent from the disk, and verified again afterwards. The Hub takes only smaller ones within a commit.
_MAX_BYTES_IN_MEMORY = 2**24
_CHUNK_BYTES = 2**22


@dataclass(frozen=True)
class StagedFiles:
    """
    A folder to publish, as it was before it was searched and checked.

    Args:
        folder (`Path`):
            The folder.
        origin (`Path`):
            The output directory that it was made from, for messages.
        digests (`dict[str, str]`):
            The SHA-256 of every file, by its name relative to the folder. A file that is added later is not published.
    """

    folder: Path
    origin: Path
    digests: dict[str, str]

    @classmethod
    def of(cls, folder: Path, origin: Path) -> "StagedFiles":
        """
        Takes the digests of all files of a folder that was made from an output directory.

        Raises:
            `ValueError`: If a file is a link or no ordinary file.
        """
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        digests = {name: _sha256(folder / name) for name in names}
        strange = [name for name, digest in digests.items() if not digest]
        if strange:
            raise ValueError(f"{strange[0]} in {origin} is no ordinary file. Put the file in its place.")
        return cls(folder, origin, digests)

    @property
    def names(self) -> list[str]:
        """The files, relative to the folder, in alphabetical order."""
        return list(self.digests)

    def content(self, name: str) -> bytes | str:
        """
        What to send of a file: its content, or the path of a large one, which is to be verified once it was sent.

        Raises:
            `ValueError`: If the content has changed.
        """
        path = self.folder / name
        if path.stat().st_size > _MAX_BYTES_IN_MEMORY:
            return str(path)
        content = path.read_bytes()
        self.check(name, hashlib.sha256(content).hexdigest())
        return content

    def check(self, name: str, digest: str) -> None:
        """
        Refuses another SHA-256 than that of the file.

        Raises:
            `ValueError`: If it is another one.
        """
        if digest != self.digests[name]:
            raise ValueError(
                f"{name} in {self.origin} was changed while it was published, so nothing is published: what "
                "would be sent is not what was searched and checked. Stop what writes to that folder, and try again."
            )

    def check_unchanged(self) -> None:
        """
        Reads all files again, and refuses changed ones.

        Raises:
            `ValueError`: If one has changed.
        """
        for name in self.names:
            self.check(name, _sha256(self.folder / name))

    def copy_to(self, target: Path) -> None:
        """
        Copies the files to a new folder.

        Raises:
            `ValueError`: If one has changed.
        """
        for name in self.names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, target / name)
            self.check(name, _sha256(target / name))


def _sha256(path: Path) -> str:
    """The digest of an ordinary file. Anything else has none: reading it might wait, or read another file."""
    digest = hashlib.sha256()
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
