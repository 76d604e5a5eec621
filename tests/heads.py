# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every kind of head, each with a batch of examples of different lengths."""

import torch
import transformers as hf

from tests import tiny


VOCABULARY = 50
TEXT = tiny.TEXT | {"max_position_embeddings": 32}
DECODER = {
    **{"vocab_size": VOCABULARY, "d_model": 16, "max_position_embeddings": 32, "pad_token_id": 1},
    **{"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "bos_token_id": 0, "eos_token_id": 2},
    **{"decoder_start_token_id": 2, "forced_eos_token_id": 2, "num_labels": tiny.NUM_LABELS},
}
T5 = {
    **{"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    **{"decoder_start_token_id": 0, "num_labels": tiny.NUM_LABELS},
}
AUDIO = tiny.TRANSFORMER | {
    **{"conv_dim": (8, 8), "conv_kernel": (4, 4), "conv_stride": (4, 2), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 10, "pad_token_id": 0},
    **{"feat_extract_norm": "layer", "num_labels": tiny.NUM_LABELS, "classifier_proj_size": 8},
}
LLAMA = tiny.TRANSFORMER | {"vocab_size": VOCABULARY, "max_position_embeddings": 32, "pad_token_id": 0}


def gpt2(**kwargs):
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, **kwargs))


def xlnet():
    sizes = {"vocab_size": VOCABULARY, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
    return hf.XLNetLMHeadModel(hf.XLNetConfig(**sizes))


def whisper():
    return hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            **DECODER, num_mel_bins=4, max_source_positions=8, max_target_positions=16, suppress_tokens=None
        )
    )


def fsmt():
    # This model relies on its collator for the decoder's inputs, and masks the future only without a cache.
    sizes = {key: value for key, value in DECODER.items() if key != "vocab_size"}
    vocabularies = {"src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY, "langs": ["en", "de"]}
    return hf.FSMTForConditionalGeneration(hf.FSMTConfig(**sizes, **vocabularies))


def mixtral(**kwargs):
    return hf.MixtralForCausalLM(
        hf.MixtralConfig(**LLAMA, num_local_experts=2, num_key_value_heads=2, experts_implementation="eager", **kwargs)
    )


LENGTHS = (7, 4, 6, 5)


def text(labels: str = "class", lengths: tuple[int, ...] = LENGTHS, width: int | None = None):
    """Right-padded token ids, with labels for a class, every token, the next token, some tokens or a span."""
    generator = torch.Generator().manual_seed(5)
    width = max(lengths) if width is None else width
    rows = [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]
    batch = {
        "input_ids": torch.stack([torch.nn.functional.pad(row, (0, width - len(row)), value=1) for row in rows]),
        "attention_mask": torch.stack([torch.arange(width) < length for length in lengths]).long(),
    }
    padding = batch["attention_mask"] == 0
    if labels == "class":
        batch["labels"] = torch.randint(0, tiny.NUM_LABELS, (len(lengths),), generator=generator)
    elif labels == "span":
        batch["start_positions"] = torch.tensor([1, 3, 0, 2])[: len(lengths)]
        batch["end_positions"] = torch.tensor([5, 3, 4, 3])[: len(lengths)]
    elif labels == "tokens":
        batch["labels"] = (batch["input_ids"] % tiny.NUM_LABELS).masked_fill(padding, -100)
        batch["labels"][:, 2] = -100
    elif labels == "next":
        batch["labels"] = batch["input_ids"].masked_fill(padding, -100)
        batch["labels"][:, 2] = -100
    elif labels == "masked":
        batch["labels"] = batch["input_ids"].masked_fill(padding, -100)
        batch["labels"][:, 1::2] = -100
    return batch


def choices():
    batch = text(lengths=LENGTHS + LENGTHS)
    tokens = {key: batch[key].view(4, 2, -1) for key in ("input_ids", "attention_mask")}
    return tokens | {"labels": torch.tensor([0, 1, 1, 0])}


def translation():
    target = text("next", (3, 6, 4, 5))["labels"]
    target[:, 2] = target[:, 1]
    return text() | {"labels": target}


def spectrogram():
    features = torch.randn(4, 4, 16, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return {"input_features": features, "labels": translation()["labels"]}


def waveform(labels: str = "class", width: int = 96):
    lengths = torch.tensor([96, 64, 80, 72])
    samples = torch.randn(4, 96, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mask = (torch.arange(width) < lengths[:, None]).long()
    batch = {"input_values": torch.nn.functional.pad(samples, (0, width - 96)) * mask, "attention_mask": mask}
    targets = torch.tensor([[1, 2, 2, 3], [4, 5, -100, -100], [9, 1, 3, -100], [2, -100, -100, -100]])
    return batch | {"labels": targets if labels == "ctc" else torch.tensor([0, 1, 3, 2])}


# name: (model, batch, kind of likelihood)
HEADS = {
    "bert sequence": (lambda: hf.BertForSequenceClassification(hf.BertConfig(**TEXT)), text, "classification"),
    "bert tokens": (
        lambda: hf.BertForTokenClassification(hf.BertConfig(**TEXT)),
        lambda: text("tokens"),
        "token",
    ),
    "bert choice": (lambda: hf.BertForMultipleChoice(hf.BertConfig(**TEXT)), choices, "classification"),
    "bert span": (
        lambda: hf.BertForQuestionAnswering(hf.BertConfig(**TEXT | {"num_labels": 2})),
        lambda: text("span"),
        "span",
    ),
    "bert masked": (lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)), lambda: text("masked"), "token"),
    "bert causal": (
        lambda: hf.BertLMHeadModel(hf.BertConfig(**TEXT, is_decoder=True)),
        lambda: text("next"),
        "next_token",
    ),
    "gpt2 causal": (gpt2, lambda: text("next"), "next_token"),
    "llama causal": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)), lambda: text("next"), "next_token"),
    "mixtral causal": (mixtral, lambda: text("next"), "next_token"),
    "xlnet causal": (xlnet, lambda: text("next"), "token"),
    "t5 generation": (lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)), translation, "token"),
    "t5 tokens": (lambda: hf.T5ForTokenClassification(hf.T5Config(**T5)), lambda: text("tokens"), "token"),
    "bart generation": (lambda: hf.BartForConditionalGeneration(hf.BartConfig(**DECODER)), translation, "token"),
    "mbart generation": (lambda: hf.MBartForConditionalGeneration(hf.MBartConfig(**DECODER)), translation, "token"),
    "m2m100 generation": (
        lambda: hf.M2M100ForConditionalGeneration(hf.M2M100Config(**DECODER)),
        translation,
        "token",
    ),
    "bart span": (
        lambda: hf.BartForQuestionAnswering(hf.BartConfig(**DECODER | {"num_labels": 2})),
        lambda: text("span"),
        "span",
    ),
    "whisper": (whisper, spectrogram, "token"),
    "vit": (tiny.vit, tiny.image_batch, "classification"),
    "wav2vec2 sequence": (
        lambda: hf.Wav2Vec2ForSequenceClassification(hf.Wav2Vec2Config(**AUDIO)),
        waveform,
        "classification",
    ),
    "wav2vec2 ctc": (lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**AUDIO)), lambda: waveform("ctc"), "ctc"),
    "wav2vec2 ctc mean": (
        lambda: hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**AUDIO, ctc_loss_reduction="mean")),
        lambda: waveform("ctc"),
        "ctc",
    ),
}
