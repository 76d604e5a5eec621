# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import torch

from hf_deepclean.models.heads import find_likelihood
from hf_deepclean.models.rows import row_signatures, select_examples, shares_of_rows, unexplained_tensors
from tests.models import multimodal


def model(**config):
    return SimpleNamespace(config=SimpleNamespace(**{"image_token_id": 50} | config))


def batch(*rows, **entries):
    """Rows of text in which "i" stands for a token of an image, "v" of a video, "a" of a sound."""
    ids = {"i": 50, "v": 51, "a": 52, "t": 3}
    length = max(map(len, rows))
    tokens = torch.tensor([[ids[letter] for letter in row] + [0] * (length - len(row)) for row in rows])
    return {"input_ids": tokens, "labels": tokens} | entries


def test_tensors_with_an_entry_per_row_are_indexed_by_row():
    entries = {"pixel_values": torch.arange(3), "weights": torch.arange(4), "flag": True, "number": torch.tensor(1)}
    selected = select_examples(model(image_token_id=None), batch("tt", "tt", "tt", **entries), [2, 0, 2])
    assert selected["pixel_values"].tolist() == [2, 0, 2]
    assert selected["weights"].tolist() == [0, 1, 2, 3] and selected["flag"] and selected["number"] == 1


@pytest.mark.parametrize(
    ("rows", "entries", "expected"),
    [
        # An image has as many tokens as any other: by their number, also side by side.
        (("tiit", "tt", "tiitiit"), {"pixel_values": 3}, [1, 0, 2]),
        (("tiit", "tt", "tiiiit"), {"pixel_values": 3}, [1, 0, 2]),
        # As many images as rows.
        (("tiit", "tt", "tiitiit"), {"pixel_values": 3, "image_sizes": [[8, 8]] * 3}, [1, 0, 2]),
        # Images of different sizes, each an uninterrupted run.
        (("tit", "tiiit", "tt", "tiitit"), {"pixel_values": 4}, [1, 1, 0, 2]),
        # Four patches per token.
        (("tit", "tt", "tiit"), {"pixel_values": 12}, [4, 0, 8]),
        # Images whose lines are interrupted, told by their sizes.
        (("titi", "tititi"), {"pixel_values": 2, "image_sizes": [[4, 8], [6, 8]]}, [1, 1]),
        (("titi", "tt", "tiit", "titi"), {"pixel_values": 3, "image_sizes": [[4, 8], [2, 16], [4, 8]]}, [1, 0, 1, 1]),
        # The processor says it.
        (("tit", "tiit"), {"pixel_values": 3, "batch_num_images": [1, 2]}, [1, 2]),
        # Every row has a place for two images.
        (("tit", "tt", "titi"), {"pixel_values": 3, "pixel_attention_mask": torch.ones(3, 2, 4, 4)}, None),
        (("tit", "tt", "titi"), {"pixel_values": 3, "aspect_ratio_ids": torch.ones(3, 2)}, None),
        # No token stands for an image.
        (("tt", "tt"), {"pixel_values": 2}, [1, 1]),
        # A single row owns everything.
        (("tt",), {"pixel_values": 5}, [5]),
    ],
)
def test_images_belong_to_the_rows_whose_tokens_they_fill(rows, entries, expected):
    entries = {
        key: value if isinstance(value, torch.Tensor) else torch.arange(value) if isinstance(value, int)
        else torch.tensor(value) for key, value in entries.items()
    }  # fmt: skip
    made = batch(*rows, **entries)
    assert shares_of_rows(model(), made).get("pixel_values") == expected
    pieces = [select_examples(model(), made, [row]).get("pixel_values", torch.tensor([])) for row in range(len(rows))]
    assert torch.cat(pieces).tolist() == made["pixel_values"].tolist()


def test_grids_tell_the_patches_of_every_row():
    grids = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 4, 4]])
    made = batch("tiit", "tt", "tiiiiti", image_grid_thw=grids[[1, 2, 0]], pixel_values=torch.arange(28))
    assert shares_of_rows(model(), made) == {"image_grid_thw": [1, 0, 2], "pixel_values": [8, 0, 20]}
    selected = select_examples(model(), made, [2, 0])
    assert selected["pixel_values"].tolist() == [*range(8, 28), *range(8)]
    assert selected["image_grid_thw"].tolist() == [[1, 4, 4], [1, 2, 2], [1, 2, 4]]
    assert select_examples(model(), made, [1]).keys() == {"input_ids", "labels"}
    first, second, third = row_signatures(model(), made)
    assert len({first, second, third}) == 3


def test_videos_and_sounds_are_told_by_their_own_tokens():
    entries = {
        "pixel_values_videos": torch.arange(8),
        "video_grid_thw": torch.tensor([[2, 2, 2]]),
        "second_per_grid_ts": [0.5],
        "input_features": torch.arange(2),
        "feature_attention_mask": torch.ones(2, 7),
        "position_ids": torch.arange(18).view(3, 2, 3),
    }
    made = batch("tvv", "taat"[:3] + "a", **entries)
    made["position_ids"] = torch.arange(24).view(3, 2, 4)
    made["input_ids"][1] = torch.tensor([52, 3, 52, 52])
    own = model(video_token_id=51, audio_token_id=52)
    first, second = (select_examples(own, made, [row]) for row in range(2))
    assert first["pixel_values_videos"].tolist() == [*range(8)] and first["second_per_grid_ts"] == [0.5]
    assert "input_features" not in first and "pixel_values_videos" not in second
    assert second["input_features"].tolist() == [0, 1] and second["feature_attention_mask"].shape == (2, 7)
    assert second["position_ids"].shape == (3, 1, 4)


@pytest.mark.parametrize(
    ("rows", "entries"),
    [
        (("tit", "tiit"), {"pixel_values": 4}),
        (("tt", "tt"), {"pixel_values": 3}),
        (("tit", "tiit"), {"pixel_values": 12, "image_grid_thw": torch.tensor([[1, 2, 4], [1, 2, 2]])}),
    ],
)
def test_a_tensor_that_no_rule_explains_is_refused_by_name(rows, entries):
    made = batch(*rows, **entries | {"pixel_values": torch.arange(entries["pixel_values"])})
    with pytest.raises(ValueError, match=r"`(pixel_values|image_grid_thw)` has \d+ entries.*per_device_fisher_batch"):
        select_examples(model(), made, [0])


def test_a_tensor_of_another_length_that_the_model_needs_by_row_is_refused_by_name():
    class Patches(torch.nn.Module):
        def forward(self, patches, counts):
            parts = patches.split(counts.tolist())
            return {"logits": torch.stack([part.mean() * torch.ones(2) for part in parts])}

    made = {"patches": torch.randn(5), "counts": torch.tensor([2, 3]), "labels": torch.tensor([0, 1])}
    assert unexplained_tensors(Patches(), made) == ["patches"]
    with pytest.raises(ValueError, match=r"\['patches'\] belong to the row.* batches of one row"):
        find_likelihood(Patches(), made)


def test_the_rows_of_a_batch_add_up_to_the_batch():
    rows = multimodal.qwen_rows([(1, 2, 2)], [], [(1, 4, 2), (1, 2, 2)])
    whole, qwen = multimodal.qwen_batch(rows), multimodal.qwen2_vl()
    for index, row in enumerate(rows):
        alone, selected = multimodal.qwen_batch([row]), select_examples(qwen, whole, [index])
        assert alone.keys() == selected.keys()
        assert all(torch.equal(alone[key], selected[key]) for key in alone if alone[key].shape[1] != len(row["ids"]))
