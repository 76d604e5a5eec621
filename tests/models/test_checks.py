# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import pytest
import torch
from transformers import (
    AutoModel,
    BartConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    LEDConfig,
    LlamaConfig,
    NystromformerConfig,
    OPTConfig,
    RobertaConfig,
    T5Config,
)

from hf_deepclean import FisherUnlearner, FisherUnlearningConfig
from hf_deepclean.models.checks import check_model, check_reference, check_sequence_lengths, max_sequence_length
from tests import tiny


def test_quantised_meta_and_adapted_models_are_refused():
    check_model(tiny.vit())
    with torch.device("meta"):
        meta = tiny.vit()
    with pytest.raises(ValueError, match=r"vit\.embeddings\.cls_token is on the meta device"):
        check_model(meta)
    quantised = tiny.vit()
    quantised.classifier.weight = torch.nn.Parameter(torch.zeros(4, 16, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"classifier\.weight has dtype torch.int8"):
        check_model(quantised)
    flagged = tiny.vit()
    flagged.is_quantized = True
    with pytest.raises(ValueError, match="quantised"):
        check_model(flagged)
    adapted = tiny.vit()
    adapted._hf_peft_config_loaded = True
    with pytest.raises(ValueError, match="pass its folder as the model.*merge_and_unload"):
        check_model(adapted)


def test_a_reference_model_that_numbers_its_classes_in_another_way_is_refused():
    names = ["owl", "cat", "dog", "elk"]
    model, reference = tiny.bert(id2label=dict(enumerate(names))), tiny.bert()
    check_reference(model, reference)
    reference.config.id2label = dict(enumerate(["Owl", "Cat", "dog", "moose"]))
    check_reference(model, reference)
    reference.config.id2label = dict(enumerate(["owl", "dog", "cat", "elk"]))
    with pytest.raises(ValueError, match="gives 2 classes other numbers .* such as 'dog': 1 instead of 2"):
        check_reference(model, reference)


SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}


SEQ2SEQ = {"vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1} | {
    f"{part}_{size}": value
    for part in ("encoder", "decoder")
    for size, value in {"attention_heads": 2, "ffn_dim": 32}.items()
}


LENGTHS = [
    (GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=20), 20),
    (DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=20), 20),
    # Positions start after that of the padding token.
    (RobertaConfig(**SIZES), 18),
    # The table has two rows before the positions, which the configuration does not count.
    (OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16), 20),
    (BartConfig(**SEQ2SEQ, max_position_embeddings=20), 20),
    (NystromformerConfig(**SIZES), 20),
    # The decoder has another limit.
    (
        LEDConfig(
            **SEQ2SEQ, max_encoder_position_embeddings=20, max_decoder_position_embeddings=10, attention_window=4
        ),
        20,
    ),
    # Rotary and relative positions.
    (LlamaConfig(**SIZES), None),
    (DebertaV2Config(**SIZES, position_biased_input=False, relative_attention=True, pos_att_type=["c2p"]), None),
    (T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2), None),
]


@pytest.mark.parametrize(("config", "limit"), LENGTHS, ids=[type(config).__name__ for config, _ in LENGTHS])
def test_the_longest_sequence_is_the_longest_that_the_model_runs_on(config, limit):
    model = AutoModel.from_config(config).eval()
    assert max_sequence_length(model) == limit

    def run(length):
        tokens = torch.full((1, length), 7)
        decoder = {"decoder_input_ids": tokens[:, :4]} if config.is_encoder_decoder else {}
        with torch.no_grad():
            model(input_ids=tokens, **decoder)

    run(limit or 40)
    if limit is not None:
        with pytest.raises((IndexError, RuntimeError)):
            run(limit + 1)


def test_a_model_without_tokens_has_no_longest_sequence():
    assert max_sequence_length(tiny.vit()) is None
    assert max_sequence_length(torch.nn.Linear(2, 2)) is None


def token_rows(*lengths):
    return datasets.Dataset.from_dict(
        {
            "input_ids": [[5 + number] * length for number, length in enumerate(lengths)],
            "labels": [0 for _ in lengths],
        }
    )


@pytest.mark.parametrize("kind", [None, "torch"])
def test_rows_with_more_tokens_than_positions_are_counted(kind):
    rows = token_rows(3, 16, 17, 30).with_format(kind)
    check_sequence_lengths(tiny.bert(), rows.select([0, 1]), "forget_dataset")
    with pytest.raises(ValueError, match="2 of 4 rows of `forget_dataset` have more than the 16 tokens"):
        check_sequence_lengths(tiny.bert(), rows, "forget_dataset")
    with pytest.raises(ValueError, match="1 of 1 rows"):
        check_sequence_lengths(tiny.bert(), rows.select([3]), "forget_dataset")


def test_lengths_are_left_to_the_model_where_the_rows_do_not_show_them():
    model = tiny.bert()
    cut = token_rows(30).with_transform(lambda rows: {"input_ids": torch.tensor(rows["input_ids"])[:, :4]})
    for rows in (
        cut,
        tiny.Rows([{"input_ids": [1] * 30}]),
        tiny.digits(),
        datasets.Dataset.from_dict({"text": ["a"]}),
    ):
        check_sequence_lengths(model, rows, "forget_dataset")


def test_the_unlearner_refuses_long_rows_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="1 of 2 rows of `eval_dataset` have more than the 16 tokens"):
        FisherUnlearner(
            tiny.bert(),
            FisherUnlearningConfig(str(tmp_path / "out"), gamma=1.0),
            forget_dataset=token_rows(3),
            retain_dataset=token_rows(4),
            eval_dataset=token_rows(5, 17),
        )
    assert not list(tmp_path.iterdir())
