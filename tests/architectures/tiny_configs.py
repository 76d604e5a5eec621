# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""A valid configuration of every architecture at a tiny size, shrunk by the names of its fields."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

from tests.architectures.overrides import overrides_for


VOCABULARY, NUM_LABELS, LENGTH, POSITIONS = 64, 3, 9, 64
WIDTH, INNER, NUM_ATTENTION_HEADS, HEAD_DIM, NUM_LAYERS = 32, 64, 4, 8, 2
PAD, BOS, EOS, FIRST_TOKEN, LAST_TOKEN, FIRST_SPECIAL = 0, 1, 2, 3, 14, 30

_SIZES: dict[str, int] = {
    name: size
    for size, names in (
        (
            WIDTH,
            """hidden_size d_model n_embd dim emb_dim embed_dim embedding_size embedding_dim input_embedding_size
            output_embedding_size word_embed_proj_dim attention_hidden_size lru_width pooler_hidden_size
            pooler_output_size projection_dim projection_size output_hidden_size hidden_size_global d_latents
            classifier_proj_size cross_hidden_size text_hidden_size encoder_hidden_size decoder_hidden_size
            cross_attention_hidden_size intra_bottleneck_size true_hidden_size prediction_head_size input_size
            out_hidden_size projector_dim qformer_hidden_size visual_feat_dim mm_hidden_size vision_hidden_size
            audio_hidden_size downsample_hidden_size adapter_in_dim adapter_out_dim adapter_input_size
            projector_hidden_size t2u_variance_predictor_embed_dim feature_projection_input_dim
            projector_input_dim projector_output_dim vision_output_dim backbone_hidden_size output_channels
            mamba_d_ssm""",
        ),
        (
            INNER,
            """intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim n_inner d_ff dff dim_ff d_inner
            ffn_hidden_size feed_forward_size mlp_dim shared_intermediate_size dense_intermediate_size
            intermediate_size_mlp alignment_intermediate_size speech_encoder_intermediate_size""",
        ),
        (
            32,
            "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size prompt_mid_dim "
            "moe_shared_expert_intermediate_size shared_experts_intermediate_size num_clusters",
        ),
        (
            VOCABULARY,
            """vocab_size src_vocab_size tgt_vocab_size decoder_vocab_size vocab_size_per_layer_input
            unpadded_vocab_size audio_vocab_size codebook_size entity_vocab_size pronunciation_vocab_size
            shape_vocab_size""",
        ),
        (
            POSITIONS,
            """max_position_embeddings n_positions n_ctx max_seq_len max_source_positions max_target_positions
            max_encoder_position_embeddings max_decoder_position_embeddings context_length model_max_length
            max_2d_position_embeddings original_max_position_embeddings relative_attention_max_distance
            relative_max_distance position_bias_max_distance max_length""",
        ),
        (
            NUM_LAYERS,
            """num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers num_encoder_layers
            num_decoder_layers speech_encoder_layers t2u_encoder_layers t2u_decoder_layers l_layers r_layers
            x_layers encoder_num_hidden_layers decoder_num_hidden_layers num_global_layers num_layers_per_stack
            conf_num_hidden_layers""",
        ),
        (
            NUM_ATTENTION_HEADS,
            """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
            attention_heads num_self_attention_heads num_cross_attention_heads num_encoder_attention_heads
            num_decoder_attention_heads speech_encoder_attention_heads t2u_encoder_attention_heads
            t2u_decoder_attention_heads linear_num_value_heads linear_num_heads encoder_num_attention_heads
            decoder_num_attention_heads cross_num_attention_heads cross_num_key_value_heads index_n_heads
            num_query_groups swa_num_attention_heads conf_num_attention_heads""",
        ),
        (
            HEAD_DIM,
            """head_dim cross_head_dim attention_head_size attention_head_dim d_kv d_head kv_channels dim_head
            v_head_dim qk_rope_head_dim qk_nope_head_dim index_head_dim linear_key_head_dim
            linear_value_head_dim linear_head_dim swa_head_dim query_pre_attn_scalar time_step_rank
            mamba_dt_rank state_size ssm_state_size mamba_d_state mamba_head_dim mamba_headdim mamba_d_head
            kv_lora_rank q_lora_rank o_lora_rank laurel_rank hidden_size_per_layer_input adapter_rank
            codebook_dim codevector_dim proj_codevector_dim router_hidden_size num_mel_bins
            input_feat_per_channel lang_embed_dim spkr_embed_dim unit_embed_dim""",
        ),
        (16, "qk_head_dim moe_d_ff chunk_size mamba_chunk_size"),
        (
            4,
            """num_experts num_local_experts n_routed_experts moe_num_experts relative_attention_num_buckets
            rel_pos_bins rel_2d_pos_bins num_conv_pos_embeddings position_bias_num_buckets num_buckets
            position_buckets rotary_dim sliding_window attention_window attention_window_size
            sliding_window_size local_attention local_radius mamba_n_heads mamba_num_heads index_topk
            num_codevectors_per_group subsampling_conv_channels""",
        ),
        (
            2,
            """num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k n_group num_expert_group
            topk_group num_conv_pos_embedding_groups block_size n_groups mamba_n_groups mamba_ngroups
            n_mamba_heads num_codevector_groups linear_num_key_heads full_attention_interval attn_layer_period
            expert_layer_period sliding_window_pattern _sliding_window_pattern global_attn_every_n_layers
            global_attn_every_n_layer layer_group_size no_rope_layer_interval num_adapter_layers
            encoder_sparse_step decoder_sparse_step""",
        ),
        (
            1,
            "first_k_dense_replace num_dense_layers attn_layer_offset expert_layer_offset n_shared_experts "
            "num_nextn_predict_layers num_blocks num_shared_experts",
        ),
    )
    for name in names.split()
}
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads", "swa_num_key_value_heads")
# Fields that are needed but unset by default.
_REQUIRED = """head_dim num_key_value_heads n_routed_experts num_experts num_local_experts num_experts_per_tok
    moe_intermediate_size n_group topk_group n_shared_experts vocab_size""".split()
_STAGE_WIDTHS = (
    "hidden_sizes",
    "embed_dims",
    "neck_hidden_sizes",
    "stage_in_channels",
    "stage_mid_channels",
    "stage_out_channels",
    "base_attn_unit_dims",
    "in_channels",
    "out_channels",
)
_STAGE_DEPTHS = ("depths", "depth", "stage_num_blocks", "num_block_repeats", "n_attn_blocks", "stage_numb_of_layers")
_NUM_LAYERS_NAMES = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")


def tiny_config(model_type: str, head: str) -> PretrainedConfig:
    """A valid configuration of an architecture at the smallest useful size."""
    special_ids: dict[str, int] = defaultdict(lambda: FIRST_SPECIAL + len(special_ids))
    overrides = overrides_for(model_type, head)
    defaults = CONFIG_MAPPING[model_type]
    config = _shrunk(defaults, defaults(**overrides.get("defaults", {})), special_ids, overrides.get("config", {}))
    if head in ("sequence classification", "token classification", "image classification", "audio classification"):
        for part in (config, config.get_text_config()):
            part.num_labels = NUM_LABELS
    return config


def _shrunk(
    config_class: type[PretrainedConfig],
    default: PretrainedConfig,
    special_ids: dict[str, int],
    overrides: Mapping[str, Any],
) -> PretrainedConfig:
    names = [field.name for field in dataclasses.fields(config_class) if field.init]
    # Not by `getattr`, which refuses fields that vary between layers.
    values = {name: vars(default).get(name, getattr(config_class, name, None)) for name in names}
    layers = _distinct_layers(values)
    sizes: dict[str, Any] = {}
    for name, value in values.items():
        override = overrides.get(name)
        if isinstance(value, PretrainedConfig):
            sizes[name] = _shrunk(type(value), value, special_ids, override or {})
        elif override is None and (new := _size(name, value, values, layers, special_ids)) is not None:
            sizes[name] = new
    sizes |= {k: v for k, v in overrides.items() if not isinstance(values.get(k), PretrainedConfig)}
    return config_class(**{k: v for k, v in sizes.items() if v is not _DEFAULT})


_DEFAULT = object()


def _distinct_layers(values: Mapping[str, Any]) -> tuple[int, list[int]]:
    """The default number of layers, and the layers to keep: one of each kind, at least two."""
    depth = next((values[name] for name in _NUM_LAYERS_NAMES if isinstance(values.get(name), int)), 0)
    lists = [v for v in values.values() if isinstance(v, (list, tuple)) and len(v) == depth and depth > 4]
    kept: dict[Any, int] = {}
    for layer, kinds in enumerate(zip(*(v for v in lists if all(isinstance(x, (str, bool)) for x in v)), strict=True)):
        kept.setdefault(kinds, layer)
    chosen = sorted(kept.values())
    return depth, chosen + [depth - 1 - i for i in range(NUM_LAYERS - len(chosen))] if depth else chosen


def _size(
    name: str, value: Any, values: Mapping[str, Any], layers: tuple[int, list[int]], special_ids: dict[str, int]
) -> Any:
    depth, kept = layers
    if name.endswith(("token_id", "token_index", "_index")) and (value is None or isinstance(value, (int, list))):
        return _special_id(name, value, special_ids)
    if value is None and name in _REQUIRED:
        return 2 if name in _KEY_VALUE_HEADS else _SIZES[name]
    if name in _KEY_VALUE_HEADS and isinstance(value, int):
        heads = values.get("num_attention_heads") or values.get("n_heads")
        return NUM_ATTENTION_HEADS if value == heads else min(value, 2)
    if name == "rope_parameters" and isinstance(value, dict):
        return _rope(value)
    if name in _NUM_LAYERS_NAMES and isinstance(value, int):
        return len(kept) if value == depth and kept else min(value, NUM_LAYERS)
    if isinstance(value, (list, tuple)) and len(value) == depth and depth > 4:
        value = type(value)(value[layer] for layer in kept)
        return type(value)(_SIZES.get(name, v) if isinstance(v, int) and v > 64 else v for v in value)
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        if name in _STAGE_WIDTHS:
            return type(value)(8 * max(1, round(4 * v / max(value))) for v in value)
        if name in _STAGE_DEPTHS:
            return type(value)(min(v, 2 if stage == 1 else 1) for stage, v in enumerate(value))
        if name in ("num_heads", "num_attention_heads"):
            return type(value)(min(v, 2) for v in value)
    if name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
        return min(value, _SIZES[name]) if value >= 0 else value
    if name == "image_size" and value is not None:
        return 32 if isinstance(value, int) else type(value)(32 for _ in value)
    if name == "patch_size" and isinstance(value, int):
        return min(value, 8)
    if name == "window_size" and isinstance(value, int):
        return 4
    return None


def _special_id(name: str, value: Any, special_ids: dict[str, int]) -> Any:
    known = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS}
    if name in known:
        return known[name]
    if not name.endswith(("token_id", "token_index")):
        return None
    name = name.replace("token_index", "token_id")
    return [special_ids[name]] if isinstance(value, list) else special_ids[name]


def _rope(parameters: dict[str, Any]) -> dict[str, Any]:
    shrunk = dict(parameters)
    for name, value in parameters.items():
        if isinstance(value, dict):
            shrunk[name] = _rope(value)
        elif name == "mrope_section":
            shrunk[name] = [2, 1, 1]
        elif name in ("long_factor", "short_factor"):
            shrunk[name] = [1.0] * (HEAD_DIM // 2)
        elif name == "original_max_position_embeddings":
            shrunk[name] = POSITIONS // 2
    return shrunk
