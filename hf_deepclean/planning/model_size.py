# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""The sizes of a model that determine time and memory of a run."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class ModelSize:
    """
    The sizes of a transformer that determine time and memory of a run.

    Args:
        num_parameters (`int`):
            Number of weights.
        num_table_parameters (`int`):
            Number of weights of embedding tables, which are looked up and not multiplied. A table that is tied to the
            output layer does not count.
        hidden_size, num_layers, intermediate_size (`int`):
            Width, number of layers, and width of the MLP.
        key_value_size (`int`):
            Width of the keys, smaller than `hidden_size` if heads share them.
        num_outputs (`int`):
            Number of logits per token, 0 for a head that classifies whole examples.
        mlp_matrices (`int`, *optional*, defaults to `2`):
            Number of weight matrices of an MLP: 2, or 3 if it is gated.
        mlp_tensors (`int`, *optional*, defaults to `2`):
            Number of tensors of `intermediate_size` that a training step keeps per token and layer: 2 (input and
            output of the activation function), 4 (gated MLP) or 5 (GELU computed op by op, as in GPT-2).
        norm_tensors (`int`, *optional*, defaults to `0`):
            Number of tensors of `hidden_size` that a training step keeps in addition to the inputs of the layers: 2
            for RMS norms computed op by op.
        num_in_scope (`int`, *optional*):
            Number of weights that may be reset, by default all.
    """

    num_parameters: int
    num_table_parameters: int
    hidden_size: int
    num_layers: int
    intermediate_size: int
    key_value_size: int
    num_outputs: int
    mlp_matrices: int = 2
    mlp_tensors: int = 2
    norm_tensors: int = 0
    num_in_scope: int | None = None

    @property
    def scope(self) -> int:
        """Number of weights that may be reset."""
        return self.num_parameters if self.num_in_scope is None else self.num_in_scope

    @property
    def largest_parameter(self) -> int:
        """Number of weights of the largest parameter: a table, the output layer, or a matrix of the MLP."""
        return self.hidden_size * max(self.num_outputs, self.intermediate_size)

    @property
    def layer_parameters(self) -> int:
        """Number of weights that sharded processes gather at a time."""
        return max(self.num_parameters // max(1, self.num_layers), self.largest_parameter)

    def forward_flops(self, tokens: int) -> float:
        """Operations of a forward pass of one example: `2 M T + 4 L T^2 d`, with `M` multiplied weights."""
        matrices = self.num_parameters - self.num_table_parameters
        return 2.0 * matrices * tokens + 4.0 * self.num_layers * tokens**2 * self.hidden_size

    def weight_gradient_flops(self, tokens: int) -> float:
        """Operations of the weight gradients of one example: `2 M T` over the weights in scope."""
        return 2.0 * min(self.scope, self.num_parameters - self.num_table_parameters) * tokens

    def activation_bytes(self, bytes_per_element: int) -> int:
        """
        Bytes that one layer keeps per token for the backward pass: `(6 + n) d + 2 d_kv + m f` elements. The `n d`
        inputs of RMS norms are float32. Attention weights are not kept.
        """
        elements = 6 * self.hidden_size + 2 * self.key_value_size + self.mlp_tensors * self.intermediate_size
        return elements * bytes_per_element + 4 * self.norm_tensors * self.hidden_size

    @classmethod
    def of_weights(cls, num_parameters: int, num_outputs: int = 32000) -> "ModelSize":
        """
        The sizes of a language model of the usual shape with `num_parameters` weights: `P = 12 L d^2 + 2 V d`,
        `L = d / 128`.

        Args:
            num_parameters (`int`):
                Number of weights.
            num_outputs (`int`, *optional*, defaults to `32000`):
                Size of the vocabulary.
        """
        hidden = (num_parameters * 128 / 12) ** (1 / 3)
        for _ in range(20):
            hidden = (max(1, num_parameters - 2 * num_outputs * hidden) * 128 / 12) ** (1 / 3)
        hidden = max(1, round(hidden))
        layers = max(1, round(hidden / 128))
        return cls(num_parameters, num_outputs * hidden, hidden, layers, 4 * hidden, hidden, num_outputs)

    @classmethod
    def of_config(cls, name_or_path: str) -> "ModelSize":
        """
        Reads the sizes of a model from its configuration, without reading or allocating weights.

        Args:
            name_or_path (`str`):
                Folder, `config.json` or Hub id.

        Raises:
            `ValueError`: If the configuration names no architecture, or not the sizes of a transformer.
        """
        import torch
        import transformers
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
        names = config.architectures
        if not names or not hasattr(transformers, names[0]):
            raise ValueError(
                f"The configuration of {name_or_path!r} names no architecture of transformers ({names}), so its head "
                "is unknown. Pass the sizes instead: `num_parameters` and `vocab_size`."
            )
        with torch.device("meta"):
            model = getattr(transformers, names[0])(config)
        return cls.of_model(model)

    @classmethod
    def of_model(cls, model: Any) -> "ModelSize":
        """
        Reads the sizes of a model.

        Args:
            model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
                The model, on any device including the meta device. Only the adapter of a PEFT model is in scope.

        Raises:
            `ValueError`: If the configuration has no `hidden_size` or `num_hidden_layers`.
        """
        from torch import nn

        from ..models.adapters.parameters import is_adapted
        from ..models.heads import base_model
        from ..models.scope import parameters_in_scope

        scope = parameters_in_scope(model, reset_scope="adapter" if is_adapted(model) else "full")
        bare = base_model(model)
        config = bare.config.get_text_config()
        hidden = getattr(config, "hidden_size", None)
        layers = getattr(config, "num_hidden_layers", None)
        if hidden is None or layers is None:
            raise ValueError(
                f"The configuration of {type(bare).__name__} has no `hidden_size` or `num_hidden_layers`, so its size "
                "is unknown. Pass the sizes instead: `num_parameters` and `vocab_size`."
            )
        inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden
        heads = getattr(config, "num_attention_heads", 1)
        shared = getattr(config, "num_key_value_heads", None) or heads
        head_size = getattr(config, "head_dim", None) or hidden // heads
        output = bare.get_output_embeddings()
        # PEFT wraps the embedding tables that it adapts.
        multiplied = None if output is None else getattr(output, "base_layer", output).weight
        tables = {m.weight for m in bare.modules() if isinstance(m, nn.Embedding) and m.weight is not multiplied}
        num_up_projections = sum(
            name.endswith(("gate_proj", "up_proj")) and hasattr(module, "weight")
            for name, module in bare.named_modules()
        )
        is_gated = num_up_projections >= 2 * layers
        is_gelu_stepwise = getattr(config, "activation_function", None) == "gelu_new"
        kinds = {type(module).__name__ for module in bare.modules() if hasattr(module, "weight")}
        return cls(
            num_parameters=sum(parameter.numel() for parameter in bare.parameters()),
            num_table_parameters=sum(table.numel() for table in tables),
            hidden_size=hidden,
            num_layers=layers,
            intermediate_size=inner,
            key_value_size=shared * head_size,
            num_outputs=0 if multiplied is None else len(multiplied),
            mlp_matrices=3 if is_gated else 2,
            mlp_tensors=4 if is_gated else 5 if is_gelu_stepwise else 2,
            norm_tensors=2 if any("RMSNorm" in kind for kind in kinds) else 0,
            num_in_scope=sum(parameter.numel() for parameter in scope.values()),
        )

    def with_adapter(self, rank: int) -> "ModelSize":
        """
        The sizes of the model with a LoRA adapter on all linear layers, which alone is in scope.

        Args:
            rank (`int`):
                Rank of the adapter.
        """
        attention = 2 * 2 * self.hidden_size + 2 * (self.hidden_size + self.key_value_size)
        mlp = self.mlp_matrices * (self.hidden_size + self.intermediate_size)
        adapter = rank * self.num_layers * (attention + mlp)
        return replace(self, num_parameters=self.num_parameters + adapter, num_in_scope=adapter)
