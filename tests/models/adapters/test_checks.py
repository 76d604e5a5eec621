# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_deepclean import parameters_in_scope, reset_weights
from hf_deepclean.models.adapters.checks import check_adapter
from hf_deepclean.models.checks import check_model
from tests import heads, tiny
from tests.models.adapters.examples import adapted, everything, scaled, unlearner_for
from tests.unlearner.runs import config


def test_an_unknown_scope_and_rewinding_an_adapter_are_refused_by_the_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"`reset_scope` is 'lora' but must be one of 'full', 'adapter'"):
        config(tmp_path, reset_scope="lora")
    with pytest.raises(ValueError, match="use `reset_value='init'`"):
        config(tmp_path, reset_scope="adapter", reset_value="pretrained", pretrained_model="base")


def prompt_tuned():
    return get_peft_model(heads.gpt2(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def two_active():
    model = get_peft_model(heads.gpt2(), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    model.add_adapter("second", LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    model.base_model.set_adapter(["default", "second"])
    return model


def merged():
    model = adapted()
    model.merge_adapter()
    return model


def switched_off():
    model = adapted()
    model.disable_adapter_layers()
    return model


def for_inference():
    model = adapted()
    model.set_requires_grad("default", False)
    return model


def with_quantised_base(method, lora=None, **attributes):
    model = adapted("llama", **(lora or {}))
    base = model.get_base_model()
    base.is_quantized, base.quantization_method, base.is_loaded_in_8bit = True, method, True
    for name, value in attributes.items():
        setattr(next(base.parameters()), name, value)
    return model


REFUSED = {
    "another method": (scaled, {}, r"cleans LoRA adapters, and this model has IA3 \(adapter 'default'\)"),
    "virtual tokens": (prompt_tuned, {}, "PROMPT_TUNING"),
    "several active": (two_active, {}, r"2 adapters of this model are active \('default', 'second'\)"),
    "merged": (merged, {}, r"merged into the base.*unmerge_adapter"),
    "switched off": (switched_off, {}, r"switched off.*enable_adapter_layers"),
    "for inference": (for_inference, {}, r"None of the 10 parameters.*is_trainable=True"),
    "biases of the base": (lambda: adapted(bias="all"), {}, r"`bias='all'`"),
    "a variant": (lambda: adapted("llama", alora_invocation_tokens=[1]), {}, "ALoraLinearVariant"),
    "PiSSA": (lambda: adapted("llama", init_lora_weights="pissa"), {"reset_value": "init"}, "'pissa'"),
    "OLoRA": (lambda: adapted("llama", init_lora_weights="olora"), {"reset_value": "init"}, "'olora'"),
    "EVA": (lambda: adapted("llama", init_lora_weights="eva"), {"reset_value": "init"}, "'eva'"),
    "random start": (lambda: adapted("llama", init_lora_weights=False), {"reset_value": "init"}, "=False"),
    "another quantisation": (lambda: with_quantised_base("gptq"), {}, "quantised by gptq"),
    "magnitudes on 8 bits": (
        lambda: with_quantised_base("bitsandbytes", {"use_dora": True}),
        {},
        "magnitudes .* in 8 bits",
    ),
    "quantised activations": (
        lambda: with_quantised_base("torchao", act_quant_kwargs={}),
        {},
        "torchao with its activations",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cleaned_is_refused_by_name_and_nothing_is_written(tmp_path, case):
    make, arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        unlearner_for(tmp_path / "clean", make(), **arguments)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("init", ["corda", "loftq", "lora_ga", "eva", "mica"])
def test_an_initialisation_from_data_or_the_base_cannot_be_repeated(init):
    model = adapted()
    model.peft_config["default"].init_lora_weights = init
    with pytest.raises(ValueError, match=f"`init_lora_weights='{init}'`"):
        check_adapter(model, "init")
    with pytest.raises(ValueError, match="cannot be repeated"):
        reset_weights(model, everything(model), "init")
    check_adapter(model, "zero")


def test_resetting_to_zero_what_was_taken_from_the_base_is_said(caplog):
    model = adapted("llama", init_lora_weights="pissa")
    with caplog.at_level(logging.WARNING):
        check_adapter(model, "zero")
    assert "moved a part of the base into it" in caplog.text


def test_a_model_and_a_scope_that_do_not_fit_are_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for model in (adapted(), tmp_path / "adapter", str(tmp_path / "adapter")):
        with pytest.raises(ValueError, match=r"`reset_scope='adapter'`.*merge_and_unload"):
            unlearner_for(tmp_path / "clean", model, reset_scope="full")
    for model in (tiny.bert(), str(tmp_path), "somebody/model"):
        with pytest.raises(ValueError, match="which has none"):
            unlearner_for(tmp_path / "clean", model)
    with pytest.raises(ValueError, match="has no adapter of its own"):
        parameters_in_scope(tiny.bert(), reset_scope="adapter")
    assert not (tmp_path / "clean").exists()


def test_a_frozen_quantised_base_passes_and_trainable_codes_do_not():
    model = with_quantised_base("bitsandbytes")
    layer = model.get_base_model().model.layers[0].mlp.gate_proj
    codes = torch.zeros(layer.weight.shape, dtype=torch.int8)
    layer.weight = torch.nn.Parameter(codes, requires_grad=False)
    check_model(model, "adapter")
    with pytest.raises(ValueError, match="quantised"):
        check_model(model, "full")
