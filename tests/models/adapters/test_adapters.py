# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import dataclasses
import importlib.util
import logging
import subprocess
import sys

import datasets
import peft
import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_deepclean import (
    FisherUnlearner,
    UnlearningReport,
    WeightSelection,
    accumulate_fisher_diagonal,
    parameters_in_scope,
    reset_weights,
)
from hf_deepclean.models.adapters.checks import check_adapter
from hf_deepclean.models.adapters.loading import load_adapted_model
from hf_deepclean.models.adapters.parameters import adapter_parameters
from hf_deepclean.models.adapters.saving import save_adapter
from hf_deepclean.models.checks import check_model
from hf_deepclean.models.likelihood import classification_log_likelihood, next_token_log_likelihood
from hf_deepclean.models.scope import token_embeddings
from hf_deepclean.reset.freeze_guard import FreezeGuard
from hf_deepclean.reset.values import default_reset_value
from hf_deepclean.reset.weights import read_weights
from hf_deepclean.selection.search import ResetTrial, SelectionSearch
from tests import heads, tiny
from tests.reset.test_values import saved
from tests.unlearner.runs import config


FORGET, RETAIN, UNSEEN = range(8), range(8, 32), range(32, 40)
FILES = ["adapter_config.json", "adapter_model.safetensors", "forget_commitment.json", "report.json"]


def llama():
    return hf.LlamaForCausalLM(hf.LlamaConfig(**heads.LLAMA))


# Every kind of base: its constructor, the task of its adapter, and what LoRA is applied to.
BASES = {
    "bert": (tiny.bert, "SEQ_CLS", ["query", "value"]),
    "gpt2": (heads.gpt2, "CAUSAL_LM", ["c_attn", "c_proj"]),
    "llama": (llama, "CAUSAL_LM", ["q_proj", "down_proj"]),
}
# Every kind of adapter that is handled, by the base it is put on.
ADAPTERS = {
    "plain": ("bert", {}),
    "Conv1D": ("gpt2", {"fan_in_fan_out": True}),
    "rank-stabilised": ("llama", {"use_rslora": True, "lora_alpha": 3}),
    "magnitudes": ("llama", {"use_dora": True}),
    "gaussian": ("llama", {"init_lora_weights": "gaussian"}),
    "orthogonal": ("llama", {"init_lora_weights": "orthogonal"}),
    "biases": ("bert", {"lora_bias": True}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings with magnitudes": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "trained table": ("llama", {"modules_to_save": ["embed_tokens"]}),
    "trained tokens": ("llama", {"trainable_token_indices": sorted(set(heads.text()["input_ids"][:, 0].tolist()))}),
    "convolutions": ("resnet", {"target_modules": ["convolution"]}),
    "convolutions with magnitudes": ("resnet", {"target_modules": ["convolution"], "use_dora": True}),
}


def base_model(kind, dtype=torch.float32):
    torch.manual_seed(0)
    return tiny.randomized(tiny.resnet() if kind == "resnet" else BASES[kind][0](), dtype)


def trained(model, seed=3, scale=0.1):
    """As if the active adapter had been trained: its weights are away from their initial ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


def adapted(kind="bert", dtype=torch.float32, base=None, **lora):
    base = base or base_model(kind, dtype)
    if kind == "resnet":
        settings = {"r": 2, "modules_to_save": ["classifier"]}
    else:
        _, task, targets = BASES[kind]
        settings = {"r": 2, "task_type": task, "target_modules": targets}
    model = trained(get_peft_model(base, LoraConfig(**(settings | lora))))
    return model.to(dtype).eval()


def kind_of_adapter(name, dtype=torch.float64):
    kind, lora = ADAPTERS[name]
    return kind, adapted(kind, dtype, **lora)


def batch_for(kind):
    if kind == "resnet":
        return tiny.image_batch()
    return tiny.text_batch() if kind == "bert" else heads.text("next", (7, 4, 6, 5, 7))


def logits(model, kind):
    inputs = {key: value for key, value in batch_for(kind).items() if key != "labels"}
    with torch.no_grad():
        return model(**inputs).logits


def dataset(kind):
    generator = torch.Generator().manual_seed(8)
    tokens = torch.randint(3, 50, (40, 8), generator=generator)
    labels = torch.randint(0, tiny.NUM_LABELS, (40,), generator=generator) if kind == "bert" else tokens
    columns = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    return datasets.Dataset.from_dict({name: column.tolist() for name, column in columns.items()})


def splits(kind="bert", **others):
    rows = dataset(kind)
    parts = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    return parts | {"unseen_dataset": rows.select(UNSEEN)} | others


def unlearner_for(directory, model, kind="bert", data=None, **kwargs):
    defaults = {"reset_scope": "adapter", "reset_fraction": 0.3, "num_train_epochs": 1}
    args = config(directory, **(defaults | kwargs))
    return FisherUnlearner(model, args, **(data or splits(kind)))


def test_a_penalty_on_an_adapter_is_whole_before_the_repair_ends_and_one_on_a_language_model_weighs_less(tmp_path):
    models = {"adapter": adapted("bert"), "full": base_model("bert")}
    penalties = {}
    for scope, model in models.items():
        unlearner = unlearner_for(tmp_path / scope, model, reset_scope=scope, reset_fraction=None)
        trial = ResetTrial(1, 1.0, 0.5, 0.5)
        unlearner.search = SelectionSearch("unseen", "accuracy", 0.1, 0.5, trial, (trial,), 0, {}, (1.0, 2.0))
        penalties[scope] = unlearner._forget_penalty()
    unlearner.search = dataclasses.replace(unlearner.search, measure="1 / (1 + loss)")
    # Without a class per example it weighs less, and is never whole.
    less = unlearner._forget_penalty()
    assert less.weight < penalties["full"].weight and less.rise > penalties["full"].rise == 1.0
    at = penalties["adapter"].rise
    assert at < 1
    assert list(penalties["adapter"].targets([0.0], [9.0], at)) == [1.5]


def on_disk(tmp_path, kind="bert", **lora):
    base_model(kind).save_pretrained(tmp_path / "base")
    base = type(base_model(kind)).from_pretrained(tmp_path / "base")
    return saved(adapted(kind, base=base, **lora), tmp_path / "adapter")


def everything(model):
    """A selection of all weights of the adapter."""
    sizes = {name: parameter.numel() for name, parameter in adapter_parameters(model).items()}
    return WeightSelection({name: torch.arange(size) for name, size in sizes.items()}, sizes, "gamma", 1.0)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def files_of(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", BASES)
def test_only_selected_adapter_weights_change_and_the_adapter_loads_into_the_untouched_base(tmp_path, kind):
    path = on_disk(tmp_path, kind)
    files = files_of(tmp_path)
    unlearner = unlearner_for(tmp_path / "clean", path, kind, weight_decay=0.1)
    before = bits(unlearner.model)
    report = unlearner.unlearn()
    after = bits(unlearner.model)

    assert 0 < report.integrity.num_selected_changed <= report.selection.num_selected
    for name in changed(before, after):
        elsewhere = torch.ones(before[name].numel(), dtype=torch.bool)
        elsewhere[unlearner.selection.indices[name]] = False
        assert torch.equal(before[name].flatten()[elsewhere], after[name].flatten()[elsewhere])
    base = type(base_model(kind)).from_pretrained(tmp_path / "base")
    assert report.integrity.num_base_weights == sum(parameter.numel() for parameter in base.parameters())
    assert f"Of the base 0 of {report.integrity.num_base_weights:,} weights changed" in str(report)
    assert report.settings["reset_scope"] == "adapter"
    assert report.model_class == type(base).__name__
    assert "peft" in report.versions

    assert sorted(item.name for item in (tmp_path / "clean").iterdir()) == FILES
    assert {name: files_of(tmp_path)[name] for name in files} == files
    assert UnlearningReport.load(tmp_path / "clean" / "report.json") == report
    old, new = (load_file(folder / "adapter_model.safetensors") for folder in (path, tmp_path / "clean"))
    assert {name: (t.shape, t.dtype) for name, t in old.items()} == {n: (t.shape, t.dtype) for n, t in new.items()}
    loaded = PeftModel.from_pretrained(base, tmp_path / "clean")
    assert changed(after, bits(loaded)) == set()


def test_of_several_adapters_the_active_one_is_cleaned_and_saved_and_the_others_keep_their_bits(tmp_path):
    model = adapted(task_type="SEQ_CLS")
    model.add_adapter("second", LoraConfig(r=3, task_type="SEQ_CLS", target_modules=["query", "key"]))
    model.set_adapter("second")
    trained(model)
    before = bits(model)
    unlearner_for(tmp_path / "clean", model).unlearn()
    different = changed(before, bits(model))
    assert different and all(".second." in name for name in different)
    assert sorted(item.name for item in (tmp_path / "clean").iterdir()) == FILES
    loaded = PeftModel.from_pretrained(base_model("bert"), tmp_path / "clean")
    ours, theirs = (
        {name.replace(f".{adapter}.", "."): p for name, p in adapter_parameters(m).items()}
        for adapter, m in (("second", model), ("default", loaded))
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_fisher_of_every_kind_of_adapter_is_that_of_the_definition(name):
    kind, model = kind_of_adapter(name)
    scope = parameters_in_scope(model, exclude_modules=[], reset_scope="adapter")
    assert scope.keys() == adapter_parameters(model).keys()
    batch = batch_for(kind)
    fisher = accumulate_fisher_diagonal(model, [batch], parameters=scope)
    expected = {name: torch.zeros_like(parameter) for name, parameter in scope.items()}
    likelihood = next_token_log_likelihood if batch["labels"].ndim == 2 else classification_log_likelihood
    for example in tiny.in_batches(batch, 1):
        inputs = {key: value for key, value in example.items() if key != "labels"}
        value = likelihood(model(**inputs), example["labels"]).sum()
        for key, gradient in zip(scope, torch.autograd.grad(value, scope.values()), strict=True):
            expected[key] += gradient**2
    for key, total in expected.items():
        assert total.max() > 0
        assert torch.allclose(fisher.sums[key].double(), total, rtol=1e-9, atol=1e-9 * total.max().item())


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_reset_of_the_whole_adapter_to_its_initial_values_gives_the_answers_of_the_base(name):
    kind, model = kind_of_adapter(name)
    base = logits(base_model(kind, torch.float64), kind)
    assert not torch.allclose(logits(model, kind), base, atol=1e-4)
    before, state, selection = bits(model), torch.get_rng_state(), everything(model)
    objects = dict(model.named_parameters())
    reset_weights(model, selection, "init", seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter is objects[key] for key, parameter in model.named_parameters())
    assert torch.allclose(logits(model, kind), base, atol=1e-6)
    assert changed(before, bits(model)) <= selection.indices.keys()

    first = read_weights(model, selection)
    reset_weights(model, selection, "init", seed=7)
    assert all(torch.equal(value, first[key]) for key, value in read_weights(model, selection).items())
    reset_weights(model, selection, "init", seed=8)
    drawn = [key for key in first if ".lora_A." in key or ".lora_embedding_B." in key]
    assert all(not torch.equal(read_weights(model, selection)[key], first[key]) for key in drawn)


def test_the_trials_count_what_the_base_of_an_adapter_knows_as_given(tmp_path):
    model = adapted("llama")
    rows = dataset("llama").remove_columns("labels").with_format("torch")

    def answers():
        with torch.no_grad():
            return model(**rows[:]).logits[:, :-1].argmax(dim=-1)

    # What the adapter knows by heart: its own answers.
    learned = answers()
    with model.disable_adapter():
        known = (answers() == learned)[RETAIN].double().mean().item()
    labels = torch.cat([torch.full((len(rows), 1), -100), learned], dim=1)
    rows = rows.add_column("labels", labels.tolist())
    parts = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    unlearner = unlearner_for(tmp_path / "clean", model, data=parts, reset_fraction=None)
    unlearner.select_weights(*(unlearner.compute_fisher(part) for part in parts.values()))
    assert learned[RETAIN].flatten().bincount().max() / learned[RETAIN].numel() < known < 1
    assert unlearner.search.chance == pytest.approx(known)


def test_initial_values_are_drawn_like_those_of_a_new_adapter():
    for init, deviation in ((True, 16**-0.5 / 3**0.5), ("gaussian", 1 / 8)):
        model = adapted("llama", r=8, init_lora_weights=init)
        selection = everything(model)
        reset_weights(model, selection, "init")
        values = read_weights(model, selection)
        assert all(value.count_nonzero() == 0 for key, value in values.items() if ".lora_B." in key)
        drawn = torch.cat([value for key, value in values.items() if ".q_proj.lora_A." in key])
        assert drawn.std().item() == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize("reset_value", ["zero", "init"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_no_rank_is_dead_after_a_reset_of_the_whole_adapter(name, reset_value, caplog):
    kind, model = kind_of_adapter(name)
    for module in model.modules():
        if isinstance(module, peft.utils.other.ModulesToSaveWrapper):
            module.modules_to_save["default"].requires_grad_(False)
    selection = everything(model)
    selection = WeightSelection(
        {key: value for key, value in selection.indices.items() if "modules_to_save" not in key},
        selection.num_weights,
        "gamma",
    )
    with caplog.at_level(logging.WARNING):
        reset_weights(model, selection, reset_value)
    assert ("would never have a gradient again" in caplog.text) == (reset_value == "zero")
    assert len(caplog.records) <= 1
    model.zero_grad()
    model(**batch_for(kind)).loss.backward()
    gradients = {key: p.grad for key, p in adapter_parameters(model).items() if p.grad is not None}
    for key, gradient in gradients.items():
        if key.endswith(("lora_B.default.weight", "lora_embedding_A.default")):
            by_rank = gradient if ".lora_embedding_A." in key else gradient.transpose(0, 1)
            assert by_rank.flatten(1).any(dim=1).all(), key


def test_zero_is_zero_where_the_rank_stays_alive_and_for_magnitudes_the_norm_of_the_base():
    model = adapted("llama", torch.float64, use_dora=True)
    selection = everything(model)
    half = {key: indices[::2] for key, indices in selection.indices.items()}
    before = bits(model)
    reset_weights(model, WeightSelection(half, selection.num_weights, "gamma"), "zero")
    for key, parameter in adapter_parameters(model).items():
        if ".lora_magnitude_vector." in key:
            base = model.get_submodule(key.split(".lora_magnitude_vector.")[0]).base_layer.weight
            assert torch.allclose(parameter[::2], base.norm(dim=1)[::2])
        else:
            assert parameter.flatten()[::2].count_nonzero() == 0
        assert torch.equal(parameter.flatten()[1::2], before[key].flatten()[1::2])


def test_a_grouped_convolution_has_no_dead_rank_either():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(4, 6, 3, groups=2)

        def forward(self, pixel_values):
            return self.convolution(pixel_values)

    torch.manual_seed(0)
    model = trained(get_peft_model(Net(), LoraConfig(r=4, target_modules=["convolution"])))
    first, second = adapter_parameters(model).values()
    assert (first.shape, second.shape) == ((4, 4, 3, 3), (6, 2, 1, 1))
    # Rank 3 is the second one of the second group: its outputs are the last three.
    row = torch.arange(first.numel()).view(first.shape)[3].flatten()
    column = torch.arange(second.numel()).view(second.shape)[3:, 1].flatten()
    names = list(adapter_parameters(model))
    indices = {names[0]: row, names[1]: column}
    reset_weights(model, WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma"))
    assert first[3].count_nonzero() == first[3].numel()
    assert second[3:, 1].count_nonzero() == 0
    indices = {names[0]: row, names[1]: column[:-1]}
    reset_weights(model, WeightSelection(indices, {n: p.numel() for n, p in model.named_parameters()}, "gamma"))
    assert first[3].count_nonzero() == first[3].numel() or second[3:, 1].any()


def test_entries_that_belong_to_single_tokens_are_known_as_such_and_in_scope_unless_left_out():
    tokens = sorted(set(tiny.text_batch()["input_ids"][:, 0].tolist()))
    for kind, table, part, lora in (
        ("bert", "word_embeddings", "lora_embedding_A", {"target_modules": ["word_embeddings", "query"]}),
        ("bert", "word_embeddings", "modules_to_save", {"modules_to_save": ["word_embeddings", "classifier"]}),
        (
            "bert",
            "word_embeddings",
            "trainable_tokens_delta",
            {"trainable_token_indices": {"word_embeddings": tokens}},
        ),
        ("llama", "embed_tokens", "lora_embedding_A", {"target_modules": ["embed_tokens", "q_proj"]}),
        ("llama", "embed_tokens", "modules_to_save", {"modules_to_save": ["embed_tokens"]}),
    ):
        model = adapted(kind, **lora)
        own = adapter_parameters(model)
        of_tokens = {key for key in own if f".{part}." in key and table in key}
        assert of_tokens
        rows = set(token_embeddings(model))
        assert {key for key, parameter in own.items() if parameter in rows} == of_tokens
        assert parameters_in_scope(model, reset_scope="adapter").keys() == own.keys()
        if len(own) > len(of_tokens):
            left = parameters_in_scope(model, exclude_modules=[table], reset_scope="adapter")
            assert left.keys() == {key for key in own if table not in key}
        assert list(parameters_in_scope(model, [table], reset_scope="adapter")) == [key for key in own if table in key]


def test_patterns_narrow_the_adapter():
    model = adapted()
    scope = parameters_in_scope(model, ["encoder.layer.1"], ["lora_A"], reset_scope="adapter")
    assert scope and all(".layer.1." in name and ".lora_B." in name for name in scope)
    assert not any("classifier" in name for name in parameters_in_scope(model, None, ["classifier"]))
    with pytest.raises(ValueError, match="No parameter is left"):
        parameters_in_scope(model, ["key"], reset_scope="adapter")


def test_an_unknown_scope_and_rewinding_an_adapter_are_refused_by_the_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"`reset_scope` is 'lora' but must be one of 'full', 'adapter'"):
        config(tmp_path, reset_scope="lora")
    with pytest.raises(ValueError, match="use `reset_value='init'`"):
        config(tmp_path, reset_scope="adapter", reset_value="pretrained", pretrained_model="base")


def prompt_tuned():
    return get_peft_model(heads.gpt2(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


def scaled():
    settings = {"target_modules": ["key", "dense"], "feedforward_modules": ["dense"]}
    return get_peft_model(tiny.bert(), peft.IA3Config(task_type="SEQ_CLS", **settings))


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


def test_weights_that_are_not_the_active_adapters_are_not_reset():
    model = adapted()
    name = "base_model.model.bert.pooler.dense.weight"
    with pytest.raises(ValueError, match=r"1 of 1 parameters.*pooler"):
        reset_weights(model, WeightSelection({name: torch.tensor([1])}, {name: 256}, "gamma"))


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


class Interrupt(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["default", "second"])
def test_resumed_from_a_checkpoint_it_ends_in_the_same_bits(tmp_path, name):
    def model():
        model = adapted()
        if name != "default":
            model.add_adapter(name, LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"]))
            model.set_adapter(name)
        return trained(model)

    arguments = {"save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1, "num_train_epochs": 2}
    whole = unlearner_for(tmp_path / "whole", model(), **arguments)
    whole_report = whole.unlearn()
    interrupted = unlearner_for(tmp_path / "parts", model(), **arguments)
    interrupted.add_callback(Interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.unlearn()
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    assert not list(checkpoint.rglob("model*.safetensors"))
    assert len(list(checkpoint.rglob("adapter_model.safetensors"))) == 1
    resumed = unlearner_for(tmp_path / "parts", model(), **arguments)
    report = resumed.unlearn(resume_from_checkpoint=True)
    assert changed(bits(whole.model), bits(resumed.model)) == set()
    assert report.integrity == whole_report.integrity


def test_the_best_checkpoint_of_an_adapter_of_any_name_is_found(tmp_path):
    model = adapted()
    model.add_adapter("second", LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query"]))
    model.set_adapter("second")
    data = splits(eval_dataset=dataset("bert").select(UNSEEN))
    arguments = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    strategies = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    unlearner = unlearner_for(tmp_path / "clean", trained(model), data=data, **arguments, **strategies)
    unlearner.unlearn()
    best = load_file(f"{unlearner.state.best_model_checkpoint}/adapter_model.safetensors")
    assert set(unlearner.state.best_model_checkpoint.split("-")[-1:]) <= {"1", "2"}
    final = load_file(tmp_path / "clean" / "adapter_model.safetensors")
    assert changed(best, final) == set()


def test_gradient_checkpointing_gives_the_same_adapter(tmp_path):
    models = []
    for checkpointed in (False, True):
        models.append(adapted("gpt2"))
        arguments = {"gradient_checkpointing": checkpointed, "learning_rate": 1e-3, "adam_epsilon": 1e-3}
        unlearner_for(tmp_path / str(checkpointed), models[-1], "gpt2", **arguments).unlearn()
    first, second = (bits(model) for model in models)
    assert changed(bits(adapted("gpt2")), first)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_control_reference_and_further_measurements_are_those_of_adapters(tmp_path):
    path = on_disk(tmp_path)
    plain = unlearner_for(tmp_path / "plain", path)
    plain.unlearn()
    for name, reference in (("path", path), ("model", load_adapted_model(path))):
        data = splits(reference_model=reference)
        measured = {"random_mask_control": True, "gamma_sweep": [1.0], "relearning_steps": 4}
        unlearner = unlearner_for(tmp_path / name, path, data=data, **(measured if name == "model" else {}))
        report = unlearner.unlearn()
        assert changed(bits(plain.model), bits(unlearner.model)) == set()
        # The reference is the adapter as it was.
        assert set(report.gaps_to_reference("before").values()) == {0.0}
    assert report.stages["control_after_repair"] != report.stages["after_repair"]
    (trial,) = report.gamma_trials
    assert trial.num_selected > 0 and trial.result != report.stages["before"]
    for stage, curve in report.relearning.curves.items():
        assert curve[0] == report.stages[stage].splits["forget"].accuracy and len(curve) == 4
    with pytest.raises(ValueError, match="`reference_model` does not have"):
        unlearner_for(tmp_path / "base alone", path, data=splits(reference_model=base_model("bert")), **measured)
    with pytest.raises(ValueError, match=r"`model` has an adapter, .* a merged copy of the result"):
        unlearner_for(tmp_path / "rounded", path, quantization_bits=[4])
    sharing = get_peft_model(unlearner.model.get_base_model(), LoraConfig(r=2, target_modules=["key"]))
    with pytest.raises(ValueError, match="two adapters need a base each"):
        unlearner_for(tmp_path / "shared", unlearner.model, data=splits(reference_model=sharing))


def test_from_trainer_takes_over_the_adapter(tmp_path):
    rows = dataset("bert")
    args = TrainingArguments(str(tmp_path / "run"), num_train_epochs=1, learning_rate=1e-2, disable_tqdm=True)
    trainer = Trainer(adapted(), args, train_dataset=rows.select(RETAIN))
    trainer.train()
    data = {"forget_dataset": rows.select(FORGET), "retain_dataset": rows.select(RETAIN)}
    with pytest.raises(ValueError, match="`reset_scope='adapter'`"):
        FisherUnlearner.from_trainer(trainer, **data, gamma=1.0)
    unlearner = FisherUnlearner.from_trainer(trainer, **data, gamma=1.0, reset_scope="adapter", reset_value="init")
    assert unlearner.model is trainer.model
    unlearner.unlearn()
    assert set(FILES) <= {path.name for path in (tmp_path / "run-unlearned").iterdir()}


def test_configurations_stay_as_they_were(tmp_path):
    model = adapted("gpt2")
    settings = copy.deepcopy(model.peft_config["default"].to_dict())
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    base_config = model.get_base_model().config.to_dict()
    unlearner_for(tmp_path / "clean", model, "gpt2").unlearn()
    assert model.peft_config["default"].to_dict() == settings
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == gradients
    assert model.get_base_model().config.to_dict() == base_config


def test_the_default_value_is_what_the_adapter_had_before_training():
    assert default_reset_value(adapted("bert")) == default_reset_value(adapted("llama")) == "init"


def test_without_peft_everything_else_works(tmp_path):
    code = f"""
import sys
sys.modules["peft"] = None
from tests.unlearner.runs import unlearner_for
from pathlib import Path
unlearner_for(Path({str(tmp_path)!r}) / "clean", num_train_epochs=0).unlearn()
sys.exit(sys.modules["peft"] is not None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / "clean" / "model.safetensors").exists()


def test_a_frozen_quantised_base_passes_and_trainable_codes_do_not():
    model = with_quantised_base("bitsandbytes")
    layer = model.get_base_model().model.layers[0].mlp.gate_proj
    codes = torch.zeros(layer.weight.shape, dtype=torch.int8)
    layer.weight = torch.nn.Parameter(codes, requires_grad=False)
    check_model(model, "adapter")
    with pytest.raises(ValueError, match="quantised"):
        check_model(model, "full")


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
    """A Llama with a base quantised on loading, and a trained adapter."""
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
