# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that the recipes train on their example texts."""

from collections.abc import Iterable

import tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Digits, Sequence
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast


def train_encoder_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int) -> PreTrainedTokenizerFast:
    """
    Trains a lower-casing tokenizer with BERT's special tokens for an encoder.

    Words are split into byte pairs as in GPT-2, because WordPiece numbers its pieces in another order in every
    training, so that equal seeds would not give equal models.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = Sequence([BertPreTokenizer(), ByteLevel(use_regex=False)])
    _train_byte_pairs(tokenizer, texts, vocab_size, special)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=model_max_length, **names)


def train_byte_pair_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int) -> PreTrainedTokenizerFast:
    """
    Trains a tokenizer like GPT-2's for a language model. It has a padding token, starts every text with the
    end-of-sequence token, and encodes every digit as one token.
    """
    special = {"pad_token": "<|pad|>", "eos_token": "<|endoftext|>"}
    tokenizer = tokenizers.Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    _train_byte_pairs(tokenizer, texts, vocab_size, list(special.values()))
    end = special["eos_token"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=model_max_length, bos_token=end, **special
    )


def _train_byte_pairs(
    tokenizer: tokenizers.Tokenizer, texts: Iterable[str], vocab_size: int, special_tokens: list[str]
) -> None:
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(texts, trainer)
