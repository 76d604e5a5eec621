# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Compares the likelihood of every head with the model's own loss, and with itself on other batches."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

from hf_deepclean import next_token_log_likelihood, token_log_likelihood
from hf_deepclean.data.batches import split_labels
from hf_deepclean.data.packing import cut_padding
from hf_deepclean.fisher.engine.scores import fisher_scores
from hf_deepclean.models.heads import find_likelihood, prepare_batch
from hf_deepclean.models.rows import select_examples
from tests import tiny
from tests.heads import HEADS, VOCABULARY, fsmt, gpt2, mixtral, text, translation, waveform, xlnet


every_head = pytest.mark.parametrize("name", HEADS)


def make(name):
    make_model, make_batch, kind = HEADS[name]
    torch.manual_seed(0)
    return tiny.randomized(make_model()), make_batch(), kind


def log_likelihood(model, batch, likelihood=None):
    batch = prepare_batch(model, batch)
    inputs, labels = split_labels(batch)
    likelihood = find_likelihood(model, batch) if likelihood is None else likelihood
    with torch.no_grad():
        return likelihood(inputs, model(**inputs), labels)


def sampled_scores(model, batch, first_position=0, seed=3):
    batch = prepare_batch(model, batch)
    inputs, labels = split_labels(batch)
    with torch.no_grad():
        outputs = model(**inputs)
    likelihood = find_likelihood(model, batch)
    positions = range(first_position, first_position + len(labels))
    (scores,) = fisher_scores(likelihood, inputs, outputs, labels, "sampled", positions=positions, seed=seed)
    return scores


def widened(batch, num_columns):
    """The batch with more padding at the right."""
    fill = {"input_ids": 1, "labels": -100}
    length = batch["attention_mask"].shape[-1]
    return {
        key: nn.functional.pad(value, (0, num_columns), value=fill.get(key, 0))
        if value.shape[-1:] == (length,)
        else value
        for key, value in batch.items()
    }


def padded_left(batch):
    """The batch with its padding at the left."""
    padding = (batch["attention_mask"] == 0).sum(dim=-1)
    moved = dict(batch)
    for key in ("input_ids", "attention_mask", "labels"):
        if key in batch and batch[key].shape == batch["attention_mask"].shape:
            rows = zip(batch[key].flatten(0, -2), padding.flatten(), strict=True)
            moved[key] = torch.stack([row.roll(int(shift)) for row, shift in rows]).view_as(batch[key])
    for key in ("start_positions", "end_positions"):
        if key in batch:
            moved[key] = batch[key] + padding
    return moved


def count_scored(kind, labels, reduction="mean"):
    if kind == "classification":
        return 1
    if kind == "span":
        return 2
    if kind == "ctc":
        return 1 if reduction == "sum" else int((labels > 0).sum())
    return int(((labels if kind == "token" else labels[:, 1:]) != -100).sum())


@every_head
def test_sums_to_the_model_own_loss_of_every_unpadded_example(name, monkeypatch):
    model, batch, kind = make(name)
    assert find_likelihood(model, prepare_batch(model, batch)).kind == kind
    # Losses of language models are cast to float32, which would hide differences below 1e-7.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    ours = log_likelihood(model, batch)
    for index, value in enumerate(ours):
        example = select_examples(model, batch, [index])
        if not name.startswith(("whisper", "vit", "wav2vec2")):
            example = cut_padding(example, labels_follow_inputs="generation" not in name)
        with torch.no_grad():
            loss = model(**example).loss.double().item()
        count = count_scored(kind, split_labels(example)[1], getattr(model.config, "ctc_loss_reduction", "mean"))
        assert -value.item() == pytest.approx(loss * count, rel=1e-6 if kind == "ctc" else 1e-10)


@every_head
def test_half_padding_changes_nothing(name):
    model, batch, kind = make(name)
    if "attention_mask" in batch:
        wider = waveform(kind, 192) if "wav2vec2" in name else widened(batch, batch["attention_mask"].shape[-1])
    else:
        wider = (
            batch | {"labels": nn.functional.pad(batch["labels"], (0, 6), value=-100)} if kind == "token" else batch
        )
    assert torch.allclose(log_likelihood(model, wider), log_likelihood(model, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "name", [name for name, head in HEADS.items() if "input_ids" in head[1]() and "xlnet" not in name]
)
def test_padding_at_the_left_changes_nothing(name):
    model, batch, _ = make(name)
    left = padded_left(widened(batch, 2)) if "generation" not in name else padded_left(batch)
    if "generation" in name:
        left["labels"] = torch.stack([row.roll(int((row == -100).sum())) for row in batch["labels"]])
        assert (left["labels"][0, 0] == -100) and (left["labels"] != batch["labels"]).any()
    assert torch.allclose(log_likelihood(model, left), log_likelihood(model, batch), rtol=1e-12, atol=1e-12)


def test_models_that_read_the_last_position_keep_their_padding():
    left = padded_left(text("next"))
    assert prepare_batch(xlnet(), left) is left


@every_head
def test_a_batch_with_nothing_to_do_is_the_same_object(name):
    model, batch, _ = make(name)
    if not name.endswith("generation") and name != "whisper":
        assert prepare_batch(model, batch) is batch
    prepared = prepare_batch(model, batch)
    assert prepare_batch(model, prepared) is prepared


def test_packed_documents_are_examples_of_their_own():
    model, batch = tiny.randomized(gpt2()), text("next")
    rows = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    packed = hf.DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)(
        [{"input_ids": row} for row in rows]
    )
    separate = [
        log_likelihood(model, {"input_ids": torch.tensor([row]), "labels": torch.tensor([row])}) for row in rows
    ]
    assert torch.allclose(log_likelihood(model, packed), torch.cat(separate), rtol=1e-12)


@every_head
def test_the_model_and_its_config_are_left_as_they_were(name):
    model, batch, _ = make(name)
    model.train()
    config, state = copy.deepcopy(model.config.to_dict()), copy.deepcopy(model.state_dict())
    find_likelihood(model, prepare_batch(model, batch))
    assert model.config.to_dict() == config
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_adapters_leave_the_kind_of_the_head():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        gpt2(), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True)
    )
    likelihood = find_likelihood(tiny.randomized(model), prepare_batch(model, text("next")))
    assert likelihood.kind == "next_token"
    model = peft.get_peft_model(hf.Wav2Vec2ForCTC(waveform_config()), peft.LoraConfig(target_modules=["q_proj"]))
    assert find_likelihood(tiny.randomized(model), waveform("ctc")).kind == "ctc"


def waveform_config():
    return HEADS["wav2vec2 ctc"][0]().config


def test_virtual_tokens_of_prompt_tuning_are_not_scored_and_predict_the_first_token():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(gpt2(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    model, batch = tiny.randomized(model), text("next")
    ours = log_likelihood(model, batch)
    for index, value in enumerate(ours):
        example = cut_padding(select_examples(model, batch, [index]))
        count = int((example["labels"] != -100).sum())
        assert -value.item() == pytest.approx(model(**example).loss.item() * count, rel=1e-6)


class Shifting(hf.GPT2LMHeadModel):
    """A subclass of a class that transformers lists."""


class Unlisted(nn.Module):
    """A head that transformers does not list. Only its loss shows that it shifts the labels."""

    def __init__(self):
        super().__init__()
        self.model = gpt2()

    def forward(self, input_ids, attention_mask=None, labels=None):
        return self.model(input_ids, attention_mask=attention_mask, labels=labels)


class Silent(Unlisted):
    def forward(self, input_ids, attention_mask=None):
        return self.model(input_ids, attention_mask=attention_mask)


def test_a_subclass_and_a_class_that_only_its_loss_describes_are_shifted():
    assert find_likelihood(tiny.randomized(Shifting(gpt2().config)), text("next")).kind == "next_token"
    assert find_likelihood(tiny.randomized(Unlisted()), text("next")).kind == "next_token"


def test_token_labels_of_a_class_that_nothing_describes_are_refused():
    with pytest.raises(ValueError, match="nothing tells whether they are shifted. Pass .*next_token_log_likelihood"):
        find_likelihood(tiny.randomized(Silent()), text("next"))
    model = tiny.randomized(Silent())
    assert find_likelihood(model, text("next"), next_token_log_likelihood).kind == "next_token"


def test_an_auxiliary_loss_is_refused_until_the_plain_likelihood_is_passed():
    model, batch = tiny.randomized(mixtral(output_router_logits=True)), text("next")
    with pytest.raises(ValueError, match=r"MixtralForCausalLM reports a loss of .*\(next_token\) and .*\(token\)"):
        find_likelihood(model, batch)
    assert find_likelihood(model, batch, next_token_log_likelihood).kind == "next_token"


def test_a_decoder_whose_inputs_are_given_keeps_them():
    model = tiny.randomized(HEADS["bart generation"][0]())
    batch = translation()
    batch["decoder_input_ids"] = torch.full_like(batch["labels"], 7)
    assert prepare_batch(model, batch)["decoder_input_ids"] is batch["decoder_input_ids"]
    assert find_likelihood(model, prepare_batch(model, batch)).kind == "token"


def test_a_decoder_that_masks_the_future_only_without_a_cache_agrees_with_its_loss():
    # transformers cannot run this model in float64.
    model, batch = tiny.randomized(fsmt(), torch.float32), translation()
    assert find_likelihood(model, prepare_batch(model, batch)).kind == "token"


def test_an_example_without_scored_tokens_has_likelihood_zero_and_no_gradient():
    model, batch = tiny.randomized(gpt2()), text("next")
    batch["labels"][1] = -100
    likelihood = find_likelihood(model, batch)
    inputs, labels = split_labels(batch)
    for fisher_type in ("empirical", "sampled"):
        (scores,) = fisher_scores(likelihood, inputs, model(**inputs), labels, fisher_type)
        assert scores[1] == 0 and (scores[[0, 2, 3]] < 0).all()
        gradients = torch.autograd.grad(scores[1], list(model.parameters()), allow_unused=True)
        assert all((gradient == 0).all() for gradient in gradients if gradient is not None)


def test_a_batch_without_a_scored_token_takes_the_kind_of_the_class():
    batch = text("next")
    batch["labels"][:] = -100
    assert find_likelihood(tiny.randomized(gpt2()), batch).kind == "next_token"


@pytest.mark.parametrize("name", ["bert sequence", "bert tokens", "bert span", "gpt2 causal", "t5 generation"])
def test_sampled_labels_depend_on_neither_batches_nor_padding(name):
    model, batch, _ = make(name)
    together = sampled_scores(model, batch, 10)
    alone = torch.cat([sampled_scores(model, select_examples(model, batch, [i]), 10 + i) for i in range(4)])
    assert torch.allclose(alone, together, rtol=1e-12)
    assert torch.allclose(sampled_scores(model, widened(batch, 5), 10), together, rtol=1e-12)
    assert not torch.allclose(sampled_scores(model, batch, 10, seed=4), together)
    assert not torch.allclose(sampled_scores(model, batch, 11), together)


class WeightedBert(hf.BertForSequenceClassification):
    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, **kwargs)
        if labels is not None:
            outputs.loss = nn.functional.cross_entropy(outputs.logits, labels, self.weights.to(outputs.logits))
        return outputs


class WeightedTokens(hf.BertForTokenClassification):
    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, **kwargs)
        if labels is not None:
            weights = self.weights.to(outputs.logits)
            outputs.loss = nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), weights)
        return outputs


@pytest.mark.parametrize("name", ["bert", "vit", "tokens"])
def test_class_weights_in_the_loss_of_the_model_are_seen_on_rows_of_a_single_class(name):
    weights = torch.tensor([1.0, 1.0, 1.0, 9.0])
    if name == "vit":
        model, batch = tiny.vit(), tiny.image_batch()
        model.loss_function = lambda labels, pooled, config, **_: nn.functional.cross_entropy(
            pooled, labels, model.weights.to(pooled)
        )
    else:
        kind = WeightedBert if name == "bert" else WeightedTokens
        model = kind(hf.BertConfig(**tiny.TEXT))
        batch = tiny.text_batch() if name == "bert" else HEADS["bert tokens"][1]()
    tiny.randomized(model)
    scored = batch["labels"] != -100
    batch = prepare_batch(model, {**batch, "labels": batch["labels"].masked_fill(scored, 0)})
    model.weights = torch.ones(4)
    assert find_likelihood(model, batch).kind == ("token" if name == "tokens" else "classification")
    model.weights = weights
    with pytest.raises(ValueError, match="was not trained on that likelihood alone"):
        find_likelihood(model, batch)


def test_a_loss_that_is_summed_over_the_examples_has_the_same_likelihood():
    model = tiny.randomized(tiny.vit())
    model.loss_function = lambda labels, pooled, config, **_: nn.functional.cross_entropy(
        pooled, labels, reduction="sum"
    )
    assert find_likelihood(model, tiny.image_batch()).kind == "classification"


def test_what_the_caller_returns_must_depend_on_the_model():
    model, batch = tiny.randomized(gpt2()), text("next")
    with pytest.raises(ValueError, match="do not depend on the model's outputs"):
        find_likelihood(model, batch, lambda outputs, labels: token_log_likelihood(outputs, labels).detach())
    with pytest.raises(ValueError, match=r"returned shape \(\) for 1 examples"):
        find_likelihood(model, batch, lambda outputs, labels: outputs.logits.mean())
    with pytest.raises(ValueError, match="returned a float for 1 examples"):
        find_likelihood(model, batch, lambda outputs, labels: 1.0)
    model.config.output_hidden_states = True
    for own in (
        lambda outputs, _: outputs.logits.sum((1, 2)),
        lambda outputs, _: outputs.hidden_states[1].sum((1, 2)),
    ):
        assert find_likelihood(model, batch, own).kind == "custom"


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("gpt2 causal", torch.full((4, 7), VOCABULARY), "7 labels of a batch lie outside the head's range 0 to 49"),
        ("bert tokens", torch.full((4, 7), -1), "7 labels of a batch lie outside the head's range 0 to 3"),
        ("bert tokens", torch.zeros(4, 5, dtype=torch.long), "5 labels for 7 tokens"),
        ("bert tokens", torch.zeros(4, 7), r"logits of shape \(1, 7, 4\).*Pass a `log_likelihood_func"),
        ("bert sequence", torch.zeros(4, 4), "a value for each of the 4 classes"),
        ("wav2vec2 ctc", torch.full((4, 3), 10), "3 labels of a batch lie outside the head's range 0 to 9"),
        ("wav2vec2 ctc", torch.zeros(4), "not token ids for CTC logits"),
    ],
)
def test_labels_that_do_not_fit_the_head_are_refused(name, labels, message):
    model, batch, _ = make(name)
    with pytest.raises(ValueError, match=message):
        find_likelihood(model, prepare_batch(model, batch | {"labels": labels}))


def test_outputs_without_logits_are_named():
    model = tiny.randomized(hf.BertModel(hf.BertConfig(**tiny.TEXT)))
    with pytest.raises(ValueError, match="no `logits` but hold .*last_hidden_state.*pooler_output"):
        find_likelihood(model, text())


def test_what_no_choice_can_be_drawn_from_is_refused():
    model, batch, _ = make("wav2vec2 ctc")
    inputs, labels = split_labels(batch)
    with pytest.raises(ValueError, match="a ctc likelihood does not give. Use `fisher_type='empirical'`"):
        next(fisher_scores(find_likelihood(model, batch), inputs, model(**inputs), labels, "sampled"))
    model, batch, _ = make("gpt2 causal")
    inputs, labels = split_labels(batch)
    with pytest.raises(ValueError, match="is for single-label classification.*Use `fisher_type='sampled'`"):
        next(fisher_scores(find_likelihood(model, batch), inputs, model(**inputs), labels, "expected"))
