# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""
Settings of tiny models that the names of configuration fields do not give.

The keys are a model type, `"model type/head"` or a class name; the more special key wins. The values:
- `config`: values of the configuration, nested like the configuration;
- `defaults`: arguments of the configuration that is shrunk;
- `inputs`: functions that make a model input from the batch maker;
- `length`: number of tokens;
- `num_labels`: number of classes.
"""

from typing import Any

import torch


def _no_input(maker: Any) -> None:
    """Makes no input, so that the input is left out."""


_CONVOLUTIONS = {
    "conv_dim": [16, 16],
    "conv_kernel": [3, 3],
    "conv_stride": [2, 2],
    "num_feat_extract_layers": 2,
    "mask_time_length": 2,
    "mask_feature_length": 2,
}
_SPEECH = {"config": _CONVOLUTIONS}
_SWIN = {"config": {"embed_dim": 8, "num_heads": (1, 2, 2, 2), "window_size": 2, "patch_size": 2}}
_SHARED_KV_LAYERS = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
    "intermediate_size": 64,
}
_MAMBA_AND_ATTENTION = {"mamba_n_heads": 8, "mamba_d_head": 8}
_WIDE_FRAMES = {"input_features": lambda maker: maker.normal(maker.size, 32, 32)}
_MELS_FIRST = {"input_features": lambda maker: maker.normal(maker.size, 8, 32), "attention_mask": _no_input}
_ZAMBA = {
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "hybrid_layer_ids": [1, 3],
}
_DOTS3 = {
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
    "num_key_value_heads": 4,
}
_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_GRANITE_SPEECH = {
    "config": {
        "encoder_config": {
            "input_dim": 8,
            "hidden_dim": 32,
            "dim_head": 8,
            "max_pos_emb": 16,
            "context_size": 4,
            "output_dim": 16,
            "conv_kernel_size": 3,
        }
    }
}
_ACOUSTIC = {"num_filters": 4, "depths": (1, 1, 1), "downsampling_ratios": (2, 2), "hidden_size": 16}


def _image(num_tokens: int, length: int = 24) -> dict[str, Any]:
    """Text with one image of `num_tokens` tokens."""
    return {
        "length": length,
        "inputs": {
            "input_ids": lambda maker: maker.ids_with_image(num_tokens),
            "pixel_values": lambda maker: maker.pixels(),
        },
    }


_PIXELS = {"inputs": {"pixel_values": lambda maker: maker.pixels()}}
_GEMMA_IMAGE = _image(4) | {"config": {"mm_tokens_per_image": 4}}


def _boxes(maker: Any) -> torch.Tensor:
    corners = maker.normal(maker.size, maker.length, 2).sigmoid() / 2
    return torch.cat([corners, corners + 0.3], dim=-1)


def _first_token(maker: Any) -> torch.Tensor:
    shape = (maker.size, 3, maker.length) if maker.entry.head == "multiple choice" else (maker.size, maker.length)
    mask = torch.zeros(shape, dtype=torch.long)
    mask[..., 0] = 1
    return mask


OVERRIDES: dict[str, dict[str, Any]] = {
    "aya_vision/image-text-to-text": {"config": {"downsample_factor": 2}},
    "audio-spectrogram-transformer": {
        "config": {"patch_size": 4, "frequency_stride": 2, "time_stride": 4, "max_length": 16},
        "inputs": {
            "input_values": lambda maker: maker.normal(maker.size, 16, 8),
            "attention_mask": _no_input,
        },
    },
    "bamba": {"config": _MAMBA_AND_ATTENTION | {"attn_layer_indices": [1]}},
    "bit": {"config": {"num_groups": 4, "embedding_size": 8}},
    "blt": {
        "config": {
            "encoder_hash_byte_group_size": [3],
            "encoder_hash_byte_group_vocab": 64,
            "patch_in_forward": False,
        }
    },
    "blip": _PIXELS,
    # Its labels count as those of a decoder, so that padding is not cut from them; the batch has none.
    "blip-2": {
        "config": {"num_query_tokens": 4},
        "inputs": _PIXELS["inputs"] | {"attention_mask": lambda maker: None},
    },
    "bros": {"config": {"hidden_size": 64}, "inputs": {"bbox": _boxes}},
    "canine": {"config": {"num_hash_buckets": 64}},
    "cohere_compass_text": {
        "config": {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
                "full_attention": None,
            }
        }
    },
    "cohere_compass": {
        "config": {
            "text_config": {
                "rope_parameters": {
                    "sliding_attention": _ROPE | {"mrope_section": [2, 1, 1]},
                    "full_attention": None,
                }
            }
        }
    },
    "cvt": {"config": {"embed_dim": (8, 16, 32), "num_heads": (1, 2, 2), "depth": (1, 2, 3)}},
    "data2vec-audio": _SPEECH,
    "dbrx": {"config": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0}}},
    "distilbert": {"config": {"hidden_dim": 64}},
    "donut-swin": _SWIN,
    "dots3_note": {"config": {"text_config": _DOTS3}},
    "dots3_note_text": {"config": _DOTS3},
    "efficientnet": {
        "config": {
            "width_coefficient": 0.1,
            "depth_coefficient": 1.0,
            "depth_divisor": 4,
            "hidden_dim": 128,
            "in_channels": (32, 16, 24, 40, 80, 112, 192),
            "out_channels": (16, 24, 40, 80, 112, 192, 320),
        }
    },
    "esm": {"config": {"vocab_size": 64, "mask_token_id": 32}},
    "focalnet": {"config": {"embed_dim": 8, "hidden_sizes": (8, 16, 32, 32)}},
    "fun_asr_nano": {"config": {"adaptor_config": {"intermediate_size": 8}}},
    "gemma3/image-text-to-text": _GEMMA_IMAGE,
    "gemma3n_text": {"config": _SHARED_KV_LAYERS},
    "gemma4_assistant": {
        "defaults": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
        "config": {"text_config": {"num_kv_shared_layers": 0}},
    },
    "gemma4_unified_assistant": {"config": {"text_config": {"num_kv_shared_layers": 0}}},
    **dict.fromkeys(
        ("glm46v", "glm4v", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"),
        {"config": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [2, 1, 1]}}}},
    ),
    **dict.fromkeys(
        ("glm4v_moe", "glm_ocr", "glmga"),
        {"config": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 0]}}}},
    ),
    "ernie4_5_vl_moe": {"config": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 2]}}}},
    "gpt_neo": {"config": {"attention_types": [[["global", "local"], 1]], "window_size": 4}},
    "granite_speech5_ctc": {"config": {"encoder_config": {"context_size": 4}}, "inputs": _WIDE_FRAMES},
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": _GRANITE_SPEECH,
    "granitemoehybrid": {"config": _MAMBA_AND_ATTENTION | {"layer_types": ["linear_attention", "full_attention"]}},
    "hgnet_v2": {
        "config": {
            "embedding_size": 8,
            "stem_channels": (3, 8, 8),
            "stage_in_channels": (8, 16, 16, 24),
            "stage_mid_channels": (8, 8, 8, 8),
            "stage_out_channels": (16, 16, 24, 32),
            "hidden_sizes": (16, 16, 24, 32),
        }
    },
    "hiera": {"config": {"embed_dim": 8, "image_size": (64, 64), "depths": (1, 2, 2, 1)}},
    "hrm_text": {"config": {"num_hidden_layers": 1, "num_layers_per_stack": None}},
    "hubert": _SPEECH,
    "layoutlmv3": {
        "config": {"coordinate_size": 6, "shape_size": 4, "input_size": 16, "patch_size": 8, "max_rel_pos": 8}
    },
    "levit": {"config": {"image_size": 64, "patch_size": 16, "key_dim": (4, 4, 4)}},
    "kyutai_speech_to_text": {
        "config": {"codec_config": {"upsample_groups": 32}, "num_codebooks": 4},
        "inputs": {"input_ids": lambda maker: maker.ids(maker.size, maker.length, 5)},
    },
    "lfm2_moe": {"config": {"layer_types": ["conv", "full_attention"]}},
    "lilt": {"config": {"hidden_size": 48}},
    "llava": _image(16),
    "longcat_flash": {"config": {"zero_expert_num": 2}},
    "longformer": {"config": {"attention_window": [4, 4]}, "inputs": {"global_attention_mask": _first_token}},
    "lxmert": {
        "inputs": {
            "visual_feats": lambda maker: maker.normal(maker.size, 4, 32),
            "visual_pos": lambda maker: maker.normal(maker.size, 4, 4).sigmoid(),
        }
    },
    "mamba2": {"config": {"num_heads": 8}},
    "markuplm": {
        "config": {
            "max_depth": 4,
            "xpath_unit_hidden_size": 8,
            "max_xpath_tag_unit_embeddings": 24,
            "max_xpath_subs_unit_embeddings": 24,
            "tag_pad_id": 20,
            "subs_pad_id": 20,
        }
    },
    "mobilenet_v1": {"config": {"depth_multiplier": 0.125}},
    "mobilenet_v2": {"config": {"depth_multiplier": 0.125}},
    "mobilevit": {"config": {"image_size": 64}},
    "mobilevitv2": {"config": {"image_size": 64, "width_multiplier": 0.125}},
    "moonshine": {
        "inputs": {"input_values": lambda maker: maker.normal(maker.size, 2000), "attention_mask": _no_input}
    },
    "moonshine_streaming": {
        "config": {"num_key_value_heads": 4},
        "inputs": {"input_values": lambda maker: maker.normal(maker.size, 800), "attention_mask": _no_input},
    },
    "mpnet": {"config": {"relative_attention_num_buckets": 32}},
    "musicgen": {"config": {"decoder": {"num_codebooks": 1}}},
    "musicgen_melody": {"config": {"decoder": {"num_codebooks": 1}}},
    "neomme": {"config": {"head_dim": 16}},
    "paligemma": _image(16),
    "perceiver": {
        "config": {
            "num_latents": 4,
            "d_latents": 32,
            "d_model": 32,
            "image_size": 16,
            "num_self_attends_per_block": 1,
            "num_cross_attention_heads": 1,
        }
    },
    "pp_lcnet": {"config": {"scale": 0.25, "class_expand": 32}},
    "qwen4_exp": {"config": {"text_config": _INDEXER}},
    "qwen4_exp_text": {"config": _INDEXER},
    "recurrent_gemma": {"config": {"num_hidden_layers": 3}},
    "reformer": {
        "config": {
            "axial_pos_shape": (4, 16),
            "axial_pos_embds_dim": (8, 24),
            "attn_layers": ("local", "lsh"),
            "local_attn_chunk_length": 4,
            "lsh_attn_chunk_length": 4,
            "num_buckets": 2,
            "hash_seed": 0,
        }
    },
    "reformer/causal LM": {"config": {"is_decoder": True}},
    "regnet": {"config": {"groups_width": 8}},
    "resnet": {"config": {"embedding_size": 8}},
    "seamless_m4t/speech seq2seq": {"inputs": _WIDE_FRAMES},
    "seamless_m4t_v2/speech seq2seq": {"inputs": _WIDE_FRAMES},
    "sew": _SPEECH,
    "sew-d": _SPEECH,
    "shieldgemma2": _GEMMA_IMAGE
    | {"config": {"mm_tokens_per_image": 4, "yes_token_index": 20, "no_token_index": 21}, "num_labels": 2},
    "siglip2": {
        "config": {"vision_config": {"patch_size": 2, "num_patches": 16}},
        "inputs": {
            "pixel_values": lambda maker: maker.normal(maker.size, 16, 12),
            "pixel_attention_mask": lambda maker: torch.ones(maker.size, 16, dtype=torch.long),
            "spatial_shapes": lambda maker: torch.tensor([[4, 4]] * maker.size),
        },
    },
    "speech-encoder-decoder": {"config": {"encoder": _CONVOLUTIONS}},
    "speecht5": {
        "config": _CONVOLUTIONS,
        "inputs": {"decoder_input_ids": lambda maker: maker.ids(maker.size, maker.length)},
    },
    "swin": _SWIN,
    "swinv2": _SWIN,
    "textnet": {"config": {"stem_out_channels": 8, "hidden_sizes": (8, 8, 16, 16, 32)}},
    "unispeech": _SPEECH,
    "unispeech-sat": _SPEECH,
    "vibevoice": {"config": {"audio_config": _ACOUSTIC, "semantic_model_config": _ACOUSTIC}},
    "vibevoice_asr": {
        "config": {
            "acoustic_tokenizer_encoder_config": _ACOUSTIC,
            "semantic_tokenizer_encoder_config": _ACOUSTIC,
        }
    },
    "vipllava": _image(16) | {"config": {"vision_feature_layers": [-1, -2]}},
    "vision-encoder-decoder": _PIXELS,
    "voxtral_realtime": {"inputs": {"input_features": lambda maker: maker.normal(maker.size, 8, 72)}},
    "wav2vec2": _SPEECH,
    "wav2vec2-bert": {"inputs": _WIDE_FRAMES},
    "wav2vec2-conformer": _SPEECH,
    "wavlm": _SPEECH,
    "whisper": {"config": {"max_source_positions": 16}},
    "whisper/audio classification": {"inputs": _MELS_FIRST},
    "whisper/speech seq2seq": {"inputs": _MELS_FIRST},
    "xlstm": {"config": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0}},
    "xmod": {"config": {"default_language": "en_XX"}},
    "zamba": {"config": _ZAMBA},
}


def overrides_for(model_type: str, head: str, class_name: str = "") -> dict[str, Any]:
    """Merges the overrides of one entry, from the general to the special."""
    merged: dict[str, Any] = {}
    for key in (model_type, f"{model_type}/{head}", class_name):
        for kind, values in OVERRIDES.get(key, {}).items():
            merged[kind] = merged.get(kind, {}) | values if isinstance(values, dict) else values
    return merged
