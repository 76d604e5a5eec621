# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tells paths of a machine or a private storage from other texts."""

import re
from urllib.parse import unquote

from ...runtime.secrets import HUB_TOKEN
from ..leaks.sources import COMMON_ACCOUNTS


_STORAGES = (
    "file|s3[an]?|gs|gcs|az|azure|abfss?|adls?|wasbs?|hdfs|webhdfs|viewfs|dbfs|oss|cosn?|obs|r2|b2|swift|nfs|smb|cifs|"
    "afp|sftp|scp|ssh|rsync|ftps?"
)
_DATA_FILES = (
    "arrow|bin|ckpt|csv|feather|gguf|h5|json|jsonl|ndjson|npy|npz|onnx|parquet|pickle|pkl|pt|pth|safetensors|tar|tsv|"
    "txt|xlsx?|zip"
)
# A text that is a path as a whole.
_PATH = re.compile(
    rf"""
      (?:{_STORAGES}):/.+                                      # file:///x, s3://bucket
    | //?[\w.][^\s\\/]*[\\/][^\n]{{1,999}}                     # /data/x, //server/share, but no token as /think
    | ~[\w.-]*[\\/][^\n]{{1,999}}                              # ~/x, ~ann/x
    | [a-z]:[\\/][\w. -][^\n]{{0,999}}                         # C:\x, D:/x
    | \\\\(?:[\w.-]+|[?.])\\[\w$. :-]+(?:\\[^\n]*)?            # \\server\share, \\?\C:\x, but no LaTeX
    | \.\.?(?:/[\w. /-]|\\(?!\d))[^\n]{{0,999}}                # ../x, ./x, ..\x, but no group \1 of a pattern
    | (?:\$\{{?[a-z_]{{2,}}\}}?|%[a-z_]{{2,}}%)[\\/][^\n]{{1,999}}   # $HOME/x, %USERPROFILE%\x
    | [\w.-]+@[\w.-]+:[~\w./][^\n]{{0,999}}                    # ann@host:x
    | [\w.-]{{2,}}:/[\w.][^\s/]*/[^\n]{{1,999}}                # host:/export/x
    | [\w.-][\w. -]*(?:[\\/][\w. -]+)*[\\/][\w. -]+\.(?:{_DATA_FILES})   # data/x.jsonl, data\x.jsonl
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Personal folders, also within a longer text. An address on the web goes before its own "/home/".
_PERSONAL = re.compile(
    r"(?<![\w.])(?:(?:[A-Za-z]:|/mnt/[a-z])?[\\/]+(?:home|users|documents and settings)|/scratch|/lustre|/gpfs|/nfs)"
    r"[\\/]+([\w.-]+)",
    re.IGNORECASE,
)
# No system has longer paths.
_MAX_LENGTH = 2**12


def is_local_path(text: str) -> bool:
    """
    Whether a text is a path of a machine or of a private storage, as a whole.

    Ids of the Hub, addresses on the web, MIME types and tokens such as `"/think"` are none. A relative path counts if
    it begins with a dot, or ends like a file of data.

    Args:
        text (`str`):
            The text.
    """
    return len(text) < _MAX_LENGTH and any(_PATH.fullmatch(form.strip(" \t\n\"'")) for form in {text, unquote(text)})


def private_part(text: str) -> str | None:
    """
    Finds somebody's folder, or an access token of the Hub, anywhere in a text.

    Args:
        text (`str`):
            The text.

    Returns:
        `str` or `None`: What it is, in words.
    """
    if HUB_TOKEN.search(text):
        return "an access token"
    forms = {text, unquote(text)} if "%" in text else {text}
    names = [name for form in forms for name in _PERSONAL.findall(form)]
    return "a path of a machine" if any(name.lower() not in COMMON_ACCOUNTS for name in names) else None
