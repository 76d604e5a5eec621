# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models of images and text, and rows with any number of images."""

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from tests import tiny


IMAGE, VIDEO, BEFORE, AFTER = 50, 51, 52, 53
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "vocab_size": 60, "intermediate_size": 32, "max_position_embeddings": 96, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2}  # fmt: skip
VISION = {"model_type": "clip_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 32, "image_size": 8, "patch_size": 4, "projection_dim": 16}  # fmt: skip


def qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 2, "in_channels": 3,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "mlp_ratio": 2}  # fmt: skip
    tokens = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": BEFORE}
    config = Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": rope}, vision_config=vision, vision_end_token_id=AFTER, **tokens
    )
    return tiny.randomized(Qwen2VLForConditionalGeneration(config))


def llava():
    config = LlavaConfig(
        image_token_index=IMAGE,
        text_config=TEXT | {"model_type": "llama"},
        vision_config=VISION,
        vision_feature_layer=-1,
    )
    return tiny.randomized(LlavaForConditionalGeneration(config))


def tokens(generator, number):
    return torch.randint(3, 50, (number,), generator=generator).tolist()


def qwen_rows(*grids, seed=0, token=IMAGE):
    """Rows with an image of every grid, a tuple of frames, height and width in patches."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for number, images in enumerate(grids):
        ids = tokens(generator, 2)
        for grid in images:
            ids += [BEFORE, *[token] * (grid[0] * grid[1] * grid[2] // 4), AFTER]
        patches = [torch.randn(t * h * w, 24, generator=generator).double() for t, h, w in images]
        rows.append({"ids": ids + tokens(generator, 4 + number % 3), "pixels": patches, "grids": list(images)})
    return rows


def qwen_batch(rows, token=IMAGE):
    batch, ending = text_batch(rows), "" if token == IMAGE else "_videos"
    batch["mm_token_type_ids"] = (batch["input_ids"] == IMAGE).int() + 2 * (batch["input_ids"] == VIDEO).int()
    grids = [grid for row in rows for grid in row["grids"]]
    if grids:
        batch[f"pixel_values{ending}"] = torch.cat([patches for row in rows for patches in row["pixels"]])
        batch[f"{'video' if ending else 'image'}_grid_thw"] = torch.tensor(grids)
    return batch


def llava_rows(*counts, seed=0, adjacent=False):
    """Rows with these numbers of images, which stand for four tokens each."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for number, count in enumerate(counts):
        ids = tokens(generator, 2)
        for _ in range(count):
            ids += [IMAGE] * 4 + ([] if adjacent else tokens(generator, 1))
        pixels = [torch.randn(3, 8, 8, generator=generator).double() for _ in range(count)]
        rows.append({"ids": ids + tokens(generator, 4 + number % 3), "pixels": pixels})
    return rows


def llava_batch(rows):
    batch, pixels = text_batch(rows), [image for row in rows for image in row["pixels"]]
    return batch | ({"pixel_values": torch.stack(pixels)} if pixels else {})


def text_batch(rows):
    length = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (length - len(row["ids"])) for row in rows])
    mask = torch.tensor([[1] * len(row["ids"]) + [0] * (length - len(row["ids"])) for row in rows])
    labels = ids.masked_fill((mask == 0) | (ids == IMAGE) | (ids == VIDEO), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
