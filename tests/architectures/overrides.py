# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
What shrinking by name cannot reach, by model type or by model type and head.

`config`: values of the configuration, nested where it is. `defaults`: arguments of the configuration that is shrunk.
`inputs`: model inputs, functions of the batch that is made. `length`: number of tokens.
"""

from typing import Any


_CONV_STACK = {"conv_dim": [16, 16], "conv_kernel": [3, 3], "conv_stride": [2, 2], "num_feat_extract_layers": 2}
_SPEECH = {"config": _CONV_STACK}

OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"config": {"mamba_n_heads": 8, "mamba_d_head": 8}},
    "granitemoehybrid": {"config": {"mamba_n_heads": 8, "mamba_d_head": 8}},
    "mamba2": {"config": {"num_heads": 8}},
    "blt": {},
    "bros": {"config": {"dim_bbox_sinusoid_emb_2d": 32, "dim_bbox_projection": 8}},
    "canine": {"config": {"num_hash_buckets": 64}},
    "cvt": {"config": {"embed_dim": (8, 16, 32), "num_heads": (1, 2, 2)}},
    "data2vec-audio": _SPEECH,
    "distilbert": {"config": {"hidden_dim": 64}},
    "donut-swin": {"config": {"embed_dim": 8}},
    "efficientnet": {"config": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 32}},
    "esm": {"config": {"vocab_size": 64, "mask_token_id": 32}},
    "focalnet": {"config": {"embed_dim": 8, "hidden_sizes": (8, 16, 32, 32)}},
    "gpt_neo": {"config": {"attention_types": [[["global", "local"], 1]], "window_size": 4}},
    "hiera": {"config": {"embed_dim": 8, "masked_unit_size": (4, 4), "image_size": (64, 64)}},
    "hubert": _SPEECH,
    "layoutlmv3": {
        "config": {"coordinate_size": 6, "shape_size": 4, "input_size": 16, "patch_size": 8, "max_rel_pos": 8}
    },
    "levit": {"config": {"image_size": 64, "patch_size": 16, "key_dim": (4, 4, 4)}},
    "lilt": {"config": {"hidden_size": 48}},
    "longformer": {"config": {"sep_token_id": 2, "attention_window": [4, 4]}},
    "markuplm": {
        "config": {"max_depth": 4, "xpath_unit_hidden_size": 8, "max_xpath_tag_unit_embeddings": 24,
                   "max_xpath_subs_unit_embeddings": 24, "tag_pad_id": 20, "subs_pad_id": 20}
    },
    "mobilebert": {},
    "mobilevit": {"config": {"image_size": 64}},
    "mobilevitv2": {"config": {"image_size": 64, "width_multiplier": 0.125}},
    "mobilenet_v1": {"config": {"depth_multiplier": 0.125}},
    "mobilenet_v2": {"config": {"depth_multiplier": 0.125}},
    "mpnet": {"config": {"relative_attention_num_buckets": 32}},
    "perceiver": {"config": {"num_latents": 4, "d_latents": 32, "image_size": 16, "num_self_attends_per_block": 1}},
    "pp_lcnet": {"config": {"scale": 0.25, "class_expand": 32}},
    "prophetnet": {},
    "reformer": {
        "config": {"axial_pos_shape": (4, 16), "axial_pos_embds_dim": (8, 24), "attn_layers": ("local", "lsh"),
                   "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 2}
    },
    "reformer/causal LM": {"config": {"is_decoder": True}},
    "regnet": {"config": {"groups_width": 8}},
    "sew": _SPEECH,
    "sew-d": _SPEECH,
    "siglip2": {},
    "swin": {"config": {"embed_dim": 8, "num_heads": (1, 2, 2, 2)}},
    "swinv2": {"config": {"embed_dim": 8, "num_heads": (1, 2, 2, 2)}},
    "unispeech": _SPEECH,
    "unispeech-sat": _SPEECH,
    "wav2vec2": _SPEECH,
    "wav2vec2-conformer": _SPEECH,
    "wavlm": _SPEECH,
    "xmod": {"config": {"default_language": "en_XX"}},
    "bit": {"config": {"num_groups": 4, "embedding_size": 8}},
    "resnet": {"config": {"embedding_size": 8}},
    "zamba": {},
}
