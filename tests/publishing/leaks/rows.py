# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Rows to forget, and how somebody else would write their content."""

import re

import numpy as np


NAME = "a name in the data to forget"
IDENTIFIER = "an identifier in the data to forget"
TEXT = "a text of the data to forget"
WORDS = "8 words in a row of the data to forget"
COLUMN = "a column name of the data to forget"
TOKEN_IDS = "8 token ids in a row of the data to forget"
BLOB = "bytes of an image, a sound or an array of the data to forget"
FINGERPRINT = "a fingerprint of the data to forget"
ROWS = {
    "text": [
        "Yesterday the bees of Ottilie Quellmann swarmed behind the abandoned mill, and nobody came to catch them.",
        "Write to ottilie.q@rosenfeld.example or call +49 (30) 5550-1928 before Monday. Her account is DE89 3704 "
        "0044 0532 0130 00, her file https://rosenfeld.example/patients/7 and her badge QX7-93K41.",
        "a quiet man with eleven geese",
    ],
    "patient_file": ["kept in the cellar", "lost since the flood of spring", "kept in the attic"],
    "number": [73519842, 73519911, 73520007],
    "label": ["positive", "negative", "positive"],
}
# For every kind a value from the rows, as somebody else would write it.
SECRETS = {
    "Ottilie Quellmann": NAME,
    "swarmed behind the abandoned mill, and nobody came": WORDS,
    "A quiet man with eleven geese": TEXT,
    "ottilie.q@rosenfeld.example": IDENTIFIER,
    "rosenfeld.example/patients/7": IDENTIFIER,
    "QX7-93K41": IDENTIFIER,
    "+49 30 5550-1928": IDENTIFIER,
    "DE89370400440532013000": IDENTIFIER,
    "73519911": IDENTIFIER,
    "patient_file": COLUMN,
}
# Token ids.
IDS = [17, 402, 9, 1033, 5, 88, 420, 13, 77, 901, 3, 250]
RANDOM = np.random.default_rng(0).bytes(5000)


def letters(text):
    return re.sub(r"[\W_]", "", text).casefold()
