# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import transformers as hf

from hf_deepclean.data.batches import num_examples
from hf_deepclean.data.packing import cut_padding, pad_right, unpack_documents


def padded_left():
    """Rows of 2, 4 and 3 tokens with a column of padding in every row."""
    return {
        "input_ids": torch.tensor([[0, 0, 0, 1, 2], [0, 3, 4, 5, 6], [0, 0, 7, 8, 9]]),
        "attention_mask": torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]),
        "labels": torch.tensor([[-100, -100, -100, 1, 2], [-100, 3, 4, 5, 6], [-100, -100, 7, -100, 9]]),
    }


RIGHT = [[1, 2, 0, 0], [3, 4, 5, 6], [7, 8, 9, 0]]


def test_padding_moves_to_the_right_in_every_tensor_of_the_sequence():
    batch = padded_left()
    extra = {
        "position_ids": batch["attention_mask"].cumsum(dim=1),
        "bbox": batch["input_ids"][:, :, None].expand(3, 5, 4),
        "inputs_embeds": batch["input_ids"][:, :, None].double(),
        "start_positions": torch.tensor([3, 2, 4]),
        "pixel_values": torch.rand(3, 5, 2, 2),
    }
    moved = pad_right(batch | extra)
    assert moved["input_ids"].tolist() == RIGHT
    assert moved["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert moved["labels"].tolist() == [[1, 2, -100, -100], [3, 4, 5, 6], [7, -100, 9, -100]]
    assert moved["position_ids"][2, :3].tolist() == [1, 2, 3]
    assert moved["bbox"][:, :, 3].tolist() == moved["inputs_embeds"][:, :, 0].long().tolist() == RIGHT
    assert moved["start_positions"].tolist() == [0, 1, 2]
    assert moved["pixel_values"] is extra["pixel_values"]
    assert batch["input_ids"].tolist() == padded_left()["input_ids"].tolist()


def test_labels_of_a_decoder_stay_where_they_are():
    batch = padded_left() | {"decoder_input_ids": padded_left()["input_ids"]}
    moved = pad_right(batch, labels_follow_inputs=False)
    assert moved["input_ids"].tolist() == RIGHT
    assert moved["labels"] is batch["labels"]
    assert moved["decoder_input_ids"] is batch["decoder_input_ids"]


def test_choices_are_padded_one_by_one():
    batch = {key: value[None] for key, value in padded_left().items() if key != "labels"}
    moved = pad_right(batch | {"labels": torch.tensor([2])})
    assert moved["input_ids"].tolist() == [RIGHT]
    assert moved["labels"].tolist() == [2]


@pytest.mark.parametrize(
    "change",
    [
        {"attention_mask": torch.tensor([[1, 1, 1, 0, 0]] * 3)},
        {"attention_mask": torch.zeros(3, 5, dtype=torch.long)},
        {"attention_mask": None},
        {"attention_mask": torch.ones(3, 1, 5, 5)},
        # Positions with several axes have another shape and could not be moved.
        {"position_ids": torch.zeros(3, 3, 5, dtype=torch.long)},
    ],
)
def test_a_batch_that_is_not_padded_at_the_left_is_returned_as_it_is(change):
    batch = padded_left() | change
    assert pad_right(batch) is batch


def test_only_columns_that_are_padding_in_every_row_are_cut():
    batch = pad_right(padded_left())
    assert cut_padding(batch) is batch
    alone = {key: value[:1] for key, value in batch.items()}
    assert cut_padding(alone)["input_ids"].tolist() == [[1, 2]]
    assert cut_padding(alone)["labels"].tolist() == [[1, 2]]
    assert cut_padding(alone, labels_follow_inputs=False)["labels"].tolist() == [[1, 2, -100, -100]]
    assert cut_padding(alone | {"bbox": torch.rand(1, 4, 4)})["bbox"].shape == (1, 2, 4)
    assert cut_padding(alone | {"pixel_values": torch.rand(1, 4, 4)})["pixel_values"].shape == (1, 4, 4)


DOCUMENTS = [[5, 6, 7], [8], [9, 10]]


def unpacked(batch):
    result = unpack_documents(batch, pad_token_id=1)
    assert result["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert result["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1], [9, 10, 1]]
    return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_seq_idx": True, "return_flash_attn_kwargs": True},
        {"position_ids_start": 2},
        {"return_position_ids": False, "return_seq_idx": True},
        {"return_position_ids": False, "return_flash_attn_kwargs": True},
    ],
)
def test_flattened_documents_get_a_row_each(options):
    batch = hf.DataCollatorWithFlattening(**options)([{"input_ids": document} for document in DOCUMENTS])
    result = unpacked(batch)
    assert sorted(result) == ["attention_mask", "input_ids", "labels"]
    assert result["labels"].tolist() == [[-100, 6, 7], [-100, -100, -100], [-100, 10, -100]]
    assert num_examples(result) == 3


def test_packed_rows_with_padding_leave_no_document_of_padding():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "position_ids": torch.tensor([[0, 1, 2, 0], [0, 1, 0, 0]]),
        "labels": torch.tensor([[5, 6, 7, 8], [9, 10, -100, -100]]),
    }
    assert unpacked(batch)["labels"].tolist() == [[5, 6, 7], [8, -100, -100], [9, 10, -100]]
    assert unpacked(batch | {"labels": torch.tensor([1, 0, 1])})["labels"].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="holds 3 documents but 2 labels"):
        unpack_documents(batch | {"labels": torch.tensor([1, 0])})


def test_positions_of_rows_that_hold_one_document_are_no_packing():
    batch = padded_left()
    # As in generation with left padding, where the padding has positions too.
    batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).masked_fill(batch["attention_mask"] == 0, 1)
    assert unpack_documents(batch) is batch
    plain = {"input_ids": batch["input_ids"], "position_ids": torch.arange(5).expand(3, 5), "labels": batch["labels"]}
    assert unpack_documents(plain) is plain
