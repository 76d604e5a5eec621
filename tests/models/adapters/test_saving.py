# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import logging

import peft
import pytest
import transformers as hf
from safetensors.torch import load_file

from hf_deepclean.models.adapters.loading import load_adapted_model
from hf_deepclean.models.adapters.saving import save_adapter
from tests.models.adapters.examples import adapted, base_model, unlearner_for


def test_saving_adds_no_embeddings_and_asks_no_hub(tmp_path, monkeypatch):
    def reached(*args, **kwargs):
        raise AssertionError("The Hub was asked.")

    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", reached)
    model = adapted("llama", target_modules=["embed_tokens", "q_proj"])
    model.peft_config["default"].base_model_name_or_path = "somebody/base"
    unlearner = unlearner_for(tmp_path / "clean", model, "llama", save_strategy="epoch", num_train_epochs=1)
    unlearner.unlearn()
    for folder in (tmp_path / "clean", *(tmp_path / "clean").glob("checkpoint-*")):
        assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    assert "save_pretrained" not in vars(model)


def test_a_resized_vocabulary_is_saved_because_the_base_on_disk_lacks_it(tmp_path, caplog):
    base_model("llama").save_pretrained(tmp_path / "base")
    base = hf.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(53)
    model = adapted("llama", base=base)
    with caplog.at_level(logging.WARNING):
        save_adapter(model, tmp_path / "adapter")
    assert "vocabulary of the base was resized" in caplog.text
    names = [name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "lora_" not in name]
    assert names == ["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"]
    with pytest.raises(ValueError, match=r"does not fit its base '.*base': .*size mismatch.*resized vocabulary"):
        load_adapted_model(tmp_path / "adapter")
