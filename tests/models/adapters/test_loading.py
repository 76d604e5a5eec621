# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from hf_deepclean.models.adapters.loading import load_adapted_model
from hf_deepclean.models.adapters.parameters import adapter_parameters
from tests import tiny
from tests.models.adapters.examples import adapted, base_model, bits, changed, on_disk, saved, scaled, unlearner_for


def change_config(path, **values):
    adapter_config = peft.PeftConfig.from_pretrained(path)
    for key, value in values.items():
        setattr(adapter_config, key, value)
    adapter_config.save_pretrained(path)


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path):
    path = on_disk(tmp_path)
    wider = hf.BertForSequenceClassification(hf.BertConfig(**(tiny.TEXT | {"hidden_size": 24})))
    deeper = hf.BertForSequenceClassification(hf.BertConfig(**(tiny.TEXT | {"num_hidden_layers": 3})))
    shallower = hf.BertForSequenceClassification(hf.BertConfig(**(tiny.TEXT | {"num_hidden_layers": 1})))
    for name, other in (("wider", wider), ("deeper", deeper), ("shallower", shallower), ("vit", tiny.vit())):
        other.save_pretrained(tmp_path / name)
        change_config(path, base_model_name_or_path=str(tmp_path / name))
        with pytest.raises(ValueError, match=rf"adapter .*adapter does not fit its base '.*{name}'"):
            unlearner_for(tmp_path / "clean", path)
    assert not (tmp_path / "clean").exists()


def test_an_adapter_without_its_base_is_refused(tmp_path):
    path = on_disk(tmp_path)
    change_config(path, base_model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"belongs to the base '.*nowhere', which cannot be loaded"):
        unlearner_for(tmp_path / "clean", path)
    change_config(path, base_model_name_or_path=None)
    with pytest.raises(ValueError, match="does not say which base it belongs to"):
        unlearner_for(tmp_path / "clean", path)
    change_config(path, base_model_name_or_path=str(tmp_path / "base"))
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="configuration of an adapter and no weights"):
        unlearner_for(tmp_path / "clean", path)
    scaled().save_pretrained(tmp_path / "scaled")
    with pytest.raises(ValueError, match="is of type IA3"):
        unlearner_for(tmp_path / "clean", tmp_path / "scaled")
    assert not (tmp_path / "clean").exists()


def test_the_head_of_a_saved_adapter_is_that_of_its_task_with_its_labels(tmp_path):
    torch.manual_seed(0)
    bare = hf.BertModel(hf.BertConfig(**{key: v for key, v in tiny.TEXT.items() if key != "num_labels"}))
    bare.save_pretrained(tmp_path / "base")
    base = hf.BertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=7)
    model = adapted(base=base)
    saved(model, tmp_path / "adapter")
    state = torch.get_rng_state()
    first, again = (load_adapted_model(tmp_path / "adapter", seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(first.get_base_model()).__name__ == "BertForSequenceClassification"
    assert first.config.num_labels == 7
    assert changed(bits(first), bits(again)) == set()
    assert all(torch.equal(p, adapter_parameters(first)[name]) for name, p in adapter_parameters(model).items())
    assert all(parameter.requires_grad for parameter in adapter_parameters(first).values())


def test_an_adapter_without_a_task_gets_the_head_of_its_base(tmp_path):
    path = on_disk(tmp_path, task_type=None, modules_to_save=["classifier"])
    assert type(load_adapted_model(path).get_base_model()).__name__ == "BertForSequenceClassification"
    base_model("resnet").save_pretrained(tmp_path / "resnet")
    base = hf.ResNetForImageClassification.from_pretrained(tmp_path / "resnet")
    saved(adapted("resnet", base=base, target_modules=["convolution"]), tmp_path / "images")
    assert type(load_adapted_model(tmp_path / "images").get_base_model()).__name__ == "ResNetForImageClassification"


def test_an_adapter_that_carries_the_bases_embeddings_is_taken_if_they_are_the_bases(tmp_path):
    path = on_disk(tmp_path, "llama", target_modules=["embed_tokens", "q_proj"])
    carried = "base_model.model.model.embed_tokens.base_layer.weight"
    assert carried in load_file(path / "adapter_model.safetensors")
    unlearner_for(tmp_path / "clean", path, "llama", num_train_epochs=0).unlearn()
    base = hf.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        base.model.embed_tokens.weight[5] += 1
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"carries weights of the base that are not those of.*embed_tokens"):
        load_adapted_model(path)
