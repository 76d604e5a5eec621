# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
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
from hf_deepclean.data.checks import check_dataset, check_disjoint
from hf_deepclean.models.checks import check_model, check_sequence_lengths, max_sequence_length
from hf_deepclean.run_state import check_output_directory
from tests import tiny


def test_overlap_is_found_by_content_and_counted():
    digits = tiny.digits()
    check_disjoint(digits.select(range(100)), digits.select(range(100, 400)))
    with pytest.raises(ValueError, match="3 of 100 rows of `forget_dataset` are in `retain_dataset`"):
        check_disjoint(digits.select(range(100)), digits.select([*range(97, 100), *range(200, 300)]))


def test_overlap_is_found_across_copies_formats_and_transforms():
    digits = tiny.digits()
    copy = datasets.Dataset.from_list(
        digits.select([5, 6]).with_format(None).to_list(), features=digits.features
    ).with_transform(lambda rows: {"pixel_values": torch.rand(len(rows["labels"]), 1, 8, 8), "labels": rows["labels"]})
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(copy, digits.select(range(6)))


def test_text_that_differs_in_one_character_is_another_row():
    forget = datasets.Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]})
    check_disjoint(forget, datasets.Dataset.from_dict({"text": ["One", "two "], "label": [0, 1]}))
    check_disjoint(forget, datasets.Dataset.from_dict({"text": ["one", "two"], "label": [1, 0]}))
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(forget, datasets.Dataset.from_dict({"label": [1], "text": ["two"], "id": [7]}))


def test_images_are_compared_by_their_bytes_not_their_path(tmp_path):
    pixels = [np.full((4, 4), value, np.uint8) for value in range(3)]
    encoded = []
    for number, array in enumerate(pixels):
        buffer = io.BytesIO()
        PillowImage.fromarray(array).save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"/somewhere/{number}.png"})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    forget = datasets.Dataset.from_dict({"image": encoded[:2], "label": [0, 0]}, features=features)
    moved = [{**encoded[1], "path": "/elsewhere/x.png"}, encoded[2]]
    retain = datasets.Dataset.from_dict({"image": moved, "label": [0, 0]}, features=features)
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(forget, retain)


def test_other_map_style_data_are_compared_too():
    rows = [{"x": torch.tensor([float(i)]), "labels": torch.tensor(0)} for i in range(4)]
    check_disjoint(tiny.Rows(rows[:2]), tiny.Rows(rows[2:]))
    with pytest.raises(ValueError, match="1 of 2 rows"):
        check_disjoint(tiny.Rows(rows[:2]), tiny.Rows(rows[1:]))


def test_labels_outside_the_head_are_counted():
    digits = tiny.digits()
    check_dataset(digits, "forget_dataset", 10)
    many = int((np.asarray(digits["labels"]) > 7).sum())
    with pytest.raises(
        ValueError, match=f"`forget_dataset` has {many} of 1797 labels outside the head's range 0 to 7"
    ):
        check_dataset(digits, "forget_dataset", 8)


def test_another_data_set_with_column_names_of_its_own_is_left_to_the_first_batch():
    rows = tiny.Rows([{"x": 1, "labels": 99}])
    rows.column_names = ["x", "labels"]
    check_dataset(rows, "forget_dataset", 10)


def test_what_is_empty_or_cannot_be_read_is_refused_and_a_stream_is_not():
    with pytest.raises(ValueError, match="`retain_dataset` is empty"):
        check_dataset(tiny.digits().select([]), "retain_dataset", 10)
    with pytest.raises(TypeError, match="`retain_dataset` is a generator"):
        check_dataset((row for row in tiny.digits()), "retain_dataset", 10)
    check_dataset(tiny.digits().to_iterable_dataset(), "retain_dataset", 10)


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
    with pytest.raises(ValueError, match="Merge them"):
        check_model(adapted)


def test_an_output_directory_that_holds_anything_is_refused(tmp_path):
    check_output_directory(tmp_path / "new", resuming=False)
    check_output_directory(tmp_path, resuming=False)
    (tmp_path / "checkpoint-10").mkdir()
    check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="already holds checkpoint-10"):
        check_output_directory(tmp_path, resuming=False)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors\. Nothing is ever overwritten"):
        check_output_directory(tmp_path, resuming=True)
    with pytest.raises(FileExistsError, match="is a file"):
        check_output_directory(tmp_path / "model.safetensors", resuming=True)


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
    # Positions start behind the padding token.
    (RobertaConfig(**SIZES), 18),
    # Two rows stand before the positions, in addition to what the configuration says.
    (OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16), 20),
    (BartConfig(**SEQ2SEQ, max_position_embeddings=20), 20),
    (NystromformerConfig(**SIZES), 20),
    # Another limit in the decoder.
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
