# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import importlib.util

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from hf_deepclean import WeightSelection
from hf_deepclean.models.adapters.parameters import adapter_parameters
from hf_deepclean.models.likelihood import next_token_log_likelihood
from hf_deepclean.reset.freeze_guard import FreezeGuard
from tests import heads
from tests.models.adapters.examples import FILES, adapted, unlearner_for


def test_the_freeze_guard_sees_the_scales_of_quantised_weights():
    class Quantised(torch.nn.Linear):
        scale = torch.ones(3)

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "weight.scale"] = self.scale

    model = Quantised(2, 3)
    model.is_quantized = True
    guard = FreezeGuard(model, WeightSelection({}, {}, "gamma"))
    guard.verify(model)
    model.scale = torch.full((3,), 1.5)
    with pytest.raises(RuntimeError, match=r"weight\.scale"):
        guard.verify(model)


def quantised(tmp_path, method, **kwargs):
    """A Llama that is quantised on loading, with a trained adapter."""
    sizes = heads.LLAMA | {"hidden_size": 64, "intermediate_size": 64}
    torch.manual_seed(0)
    hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).save_pretrained(tmp_path / "base")
    if method == "torchao":
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

        kind = Int8DynamicActivationInt8WeightConfig if kwargs else Int8WeightOnlyConfig
        quantization = hf.TorchAoConfig(kind())
    else:
        quantization = hf.BitsAndBytesConfig(**kwargs)
    base = hf.LlamaForCausalLM.from_pretrained(
        tmp_path / "base", quantization_config=quantization, dtype=torch.float32, device_map="cpu"
    )
    return adapted("llama", base=base).float()


four_bit = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


QUANTISED = {
    "4 bit": ("bitsandbytes", four_bit | {"bnb_4bit_compute_dtype": torch.float32}),
    "8 bit": ("bitsandbytes", {"load_in_8bit": True}),
    "int8": ("torchao", {}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", QUANTISED)
def test_an_adapter_on_a_quantised_base_is_cleaned_with_the_exact_fisher(tmp_path, case):
    method, arguments = QUANTISED[case]
    if importlib.util.find_spec(method) is None:
        pytest.skip(f"{method} is not installed")
    model = quantised(tmp_path, method, **arguments)
    unlearner = unlearner_for(tmp_path / "clean", model, "llama")
    rows = unlearner.forget_dataset
    unlearner.evaluate_unlearning()
    fisher = unlearner.compute_fisher(rows)
    assert fisher.fallback_parameters == {}
    expected = {name: torch.zeros_like(parameter) for name, parameter in adapter_parameters(model).items()}
    for row in rows:
        tokens = torch.tensor(row["input_ids"])[None]
        value = next_token_log_likelihood(model(input_ids=tokens), tokens).sum()
        gradients = torch.autograd.grad(value, adapter_parameters(model).values())
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient**2
    for name, total in expected.items():
        assert torch.allclose(fisher.sums[name], total, rtol=1e-4, atol=1e-6 * total.max().item())
    report = unlearner.unlearn()
    assert report.integrity.num_selected_changed > 0
    assert sorted(item.name for item in (tmp_path / "clean").iterdir()) == FILES
    assert all("lora_" in name for name in load_file(tmp_path / "clean" / "adapter_model.safetensors"))


@pytest.mark.filterwarnings("ignore")
def test_a_base_with_quantised_activations_is_refused(tmp_path):
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed")
    model = quantised(tmp_path, "torchao", dynamic=True)
    with pytest.raises(ValueError, match="with its activations"):
        unlearner_for(tmp_path / "clean", model, "llama")
