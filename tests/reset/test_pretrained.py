# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import logging

import pytest
import torch
import transformers as hf

from hf_deepclean import WeightSelection, reset_weights
from hf_deepclean.reset.pretrained import check_pretrained_model
from hf_deepclean.reset.weights import read_weights
from tests import heads, tiny
from tests.reset.models import everything, fine_tuned, saved, selection_of


def test_pretrained_rewinds_to_the_checkpoint_and_leaves_its_files_alone(tmp_path):
    base = tiny.randomized(tiny.vit(), torch.float32)
    base.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = tiny.vit()
    selection = selection_of(model)
    reset_weights(model, selection, "pretrained", pretrained_model=tmp_path)
    assert all(torch.equal(read_weights(model, selection)[n], v) for n, v in read_weights(base, selection).items())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_pretrained_gives_a_new_head_a_fresh_initialisation_and_says_so(tmp_path, caplog):
    tiny.randomized(tiny.vit(num_labels=7), torch.float32).save_pretrained(tmp_path)
    model = tiny.randomized(tiny.vit(), torch.float32)
    selection = selection_of(model)
    with caplog.at_level(logging.WARNING):
        reset_weights(model, selection, "pretrained", pretrained_model=tmp_path, seed=7)
    assert "does not have classifier.weight in the same shape" in caplog.text
    torch.manual_seed(7)
    fresh = read_weights(tiny.vit(), selection)["classifier.weight"]
    assert torch.equal(read_weights(model, selection)["classifier.weight"], fresh)


@pytest.mark.parametrize("name", ["bert masked", "bert tokens", "gpt2 causal", "llama causal", "t5 generation"])
def test_pretrained_rewinds_every_weight_exactly(name, tmp_path):
    base = tiny.randomized(heads.HEADS[name][0]())
    for source in (saved(base, tmp_path), base):
        model = fine_tuned(base)
        reset_weights(model, everything(model), "pretrained", pretrained_model=source)
        expected = base.state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_pretrained_takes_a_bare_base_model_and_one_with_another_head(tmp_path, caplog):
    base = tiny.randomized(heads.HEADS["bert masked"][0]())
    bare = hf.BertModel(base.config)
    bare.load_state_dict(base.bert.state_dict(), strict=False)
    bare = bare.double()
    sources = [saved(base, tmp_path / "masked"), saved(bare, tmp_path / "bare"), base, bare]
    for number, source in enumerate(sources):
        model = fine_tuned(tiny.randomized(tiny.bert(max_position_embeddings=32)))
        caplog.clear()
        reset_weights(model, everything(model), "pretrained", pretrained_model=source, seed=7)
        for name, value in base.bert.state_dict().items():
            assert torch.equal(model.bert.state_dict()[name], value)
        torch.manual_seed(7)
        fresh = tiny.bert(max_position_embeddings=32).double()
        assert torch.equal(model.classifier.weight, fresh.classifier.weight)
        assert "classifier.bias, classifier.weight" in caplog.text or "bert.pooler" in caplog.text
        # The masked language model has no pooler, so the pooler of the classifier is new, like its head.
        pooler = bare.pooler if number in (1, 3) else fresh.bert.pooler
        assert torch.equal(model.bert.pooler.dense.weight, pooler.dense.weight)


def test_pretrained_ties_and_unties(tmp_path):
    tied, untied = (tiny.randomized(heads.gpt2(tie_word_embeddings=tie)) for tie in (True, False))
    assert not torch.equal(untied.lm_head.weight, untied.transformer.wte.weight)
    for number, (base, other) in enumerate([(tied, untied), (untied, tied)]):
        for source in (saved(base, tmp_path / str(number)), base):
            model = fine_tuned(other)
            reset_weights(model, everything(model), "pretrained", pretrained_model=source)
            assert torch.equal(model.transformer.wte.weight, base.transformer.wte.weight)
            assert torch.equal(model.lm_head.weight, base.transformer.wte.weight)
            assert (model.lm_head.weight is model.transformer.wte.weight) == (other is tied)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("change", [5, -5])
def test_pretrained_rewinds_the_rows_of_tokens_that_both_have(tie, change, tmp_path, caplog):
    base = tiny.randomized(heads.gpt2(tie_word_embeddings=tie))
    model = copy.deepcopy(base)
    model.resize_token_embeddings(heads.VOCABULARY + change)
    model = fine_tuned(model)
    before = model.transformer.wte.weight.detach().clone()
    reset_weights(model, everything(model), "pretrained", pretrained_model=saved(base, tmp_path), seed=7)
    common = min(heads.VOCABULARY, heads.VOCABULARY + change)
    for name, weight in (("transformer.wte.weight", model.transformer.wte.weight), ("lm_head.weight", model.lm_head)):
        weight = getattr(weight, "weight", weight)
        assert torch.equal(
            weight[:common], base.get_parameter(name)[:common] if not tie else base.lm_head.weight[:common]
        )
    assert f"has 50 rows of transformer.wte.weight, this model {50 + change}" in caplog.text
    added = model.transformer.wte.weight[common:]
    assert not (added == before[common:]).any()
    assert change < 0 or 0 < added.std() < 0.04


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pretrained_takes_other_precisions(dtype, tmp_path):
    base = tiny.randomized(heads.gpt2())
    half = copy.deepcopy(base).to(dtype)
    model = fine_tuned(base, torch.float32)
    reset_weights(model, everything(model), "pretrained", pretrained_model=saved(half, tmp_path / "half"))
    expected = half.float().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    model = fine_tuned(base, dtype)
    reset_weights(model, everything(model), "pretrained", pretrained_model=saved(base, tmp_path / "whole"))
    assert all(torch.equal(value, base.state_dict()[n].to(dtype)) for n, value in model.state_dict().items())


def test_loading_what_is_not_in_the_files_leaves_the_random_state_alone(tmp_path):
    model, state = tiny.randomized(tiny.bert()), torch.get_rng_state()
    source = saved(hf.BertModel(model.config, add_pooling_layer=False), tmp_path)
    torch.set_rng_state(state)
    reset_weights(model, everything(model), "pretrained", pretrained_model=source)
    assert torch.equal(torch.get_rng_state(), state)


OTHER_MODELS = {
    "hidden size": (
        lambda: tiny.vit(hidden_size=24),
        r"of another size .*: vit.embeddings.cls_token \(1x1x24, here 1x",
    ),
    "layers": (lambda: tiny.vit(num_hidden_layers=3), r"vit.layers.2.\S+ \(only there\), .* and 13 more"),
    "fewer layers": (lambda: tiny.vit(num_hidden_layers=1), r"vit.layers.1.\S+ \(only here\), .* and 13 more"),
    "kind": (tiny.convnext, "is of the type 'convnext', but the model is of the type 'vit'"),
}


@pytest.mark.parametrize("other", OTHER_MODELS)
def test_a_checkpoint_of_another_size_or_architecture_is_refused(other, tmp_path):
    make_model, message = OTHER_MODELS[other]
    model = tiny.randomized(tiny.vit(), torch.float32)
    before = tiny.parameters_and_buffers(model)
    base = tiny.randomized(make_model(), torch.float32)
    for source in (saved(base, tmp_path), base):
        with pytest.raises(ValueError, match=message):
            check_pretrained_model(model, before.keys(), source)
        with pytest.raises(ValueError, match=message):
            reset_weights(model, everything(model), "pretrained", pretrained_model=source)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.parameters_and_buffers(model).items())


def test_a_checkpoint_that_shares_nothing_but_the_head_is_refused(tmp_path):
    model = tiny.vit()
    with pytest.raises(ValueError, match=r"none of the 1 parameters .*\(classifier.weight\)"):
        check_pretrained_model(model, ["classifier.weight"], saved(tiny.vit(num_labels=7), tmp_path))


def test_the_model_itself_is_refused_in_any_precision(tmp_path):
    model = tiny.randomized(tiny.vit(), torch.float32)
    names = dict(model.named_parameters())
    half = copy.deepcopy(model).to(torch.bfloat16)
    for source in (saved(model, tmp_path / "whole"), saved(half, tmp_path / "half"), model):
        with pytest.raises(ValueError, match="equals the model in all 40 parameters that they share: "):
            check_pretrained_model(model, names, source)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.classifier.bias += 1
    check_pretrained_model(changed, names, model)
    with pytest.raises(ValueError, match="all 1 parameters that they share and that may be reset"):
        check_pretrained_model(changed, ["classifier.weight"], model)
    with pytest.raises(ValueError, match="values that all 2 selected weights have already"):
        selection = WeightSelection({"classifier.weight": torch.tensor([1, 3])}, {"classifier.weight": 64}, "gamma")
        reset_weights(changed, selection, "pretrained", pretrained_model=model)


@pytest.mark.parametrize("missing", ["nowhere", "/nowhere/at/all", "some-organisation/some-model", "", "configured"])
def test_what_cannot_be_loaded_is_refused_without_network(missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    tiny.vit().config.save_pretrained(tmp_path / "configured")
    source = missing or str(tmp_path / "empty")
    with pytest.raises(OSError, match="cannot be loaded: it is neither a folder with"):
        check_pretrained_model(tiny.vit(), ["classifier.weight"], source)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "configured", "empty"]


def test_a_quantised_checkpoint_is_refused(tmp_path):
    base = tiny.vit()
    base.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    base.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is quantised, so it does not hold the values before"):
        check_pretrained_model(tiny.vit(), ["classifier.weight"], tmp_path)
