# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""Models of text, end to end: every kind of head with its tokenizer, its collator and its figures."""

import copy

import datasets
import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from hf_deepclean import FisherUnlearner, UnlearningReport
from hf_deepclean.models.heads import num_classes
from tests import heads, tiny
from tests.unlearner.runs import config


LETTERS = "abcdefghijklmnopqrst"


def tokenizer(padding_side="right"):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[MASK]", "[EOS]", *LETTERS])}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "eos_token": "[EOS]"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=padding_side, **special)


def sentences(count=40):
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice([*LETTERS], size=generator.integers(5, 10))) for _ in range(count)]


def causal_rows(encode):
    """The first three tokens are the prompt."""
    for sentence in sentences():
        tokens = [*encode(sentence), 3]
        yield {"input_ids": tokens, "labels": [-100] * 3 + tokens[3:]}


def masked_rows(encode):
    for sentence in sentences():
        tokens = encode(sentence)
        masked = [place % 3 == 1 for place in range(len(tokens))]
        yield {
            "input_ids": [2 if mask else token for mask, token in zip(masked, tokens, strict=True)],
            "labels": [token if mask else -100 for mask, token in zip(masked, tokens, strict=True)],
        }


def tagged_rows(encode):
    for sentence in sentences():
        tokens = encode(sentence)
        yield {"input_ids": tokens, "labels": [-100, *(token % tiny.NUM_LABELS for token in tokens[1:])]}


def classified_rows(encode):
    for sentence in sentences():
        tokens = encode(sentence)
        yield {"input_ids": tokens, "labels": tokens[0] % tiny.NUM_LABELS}


def translated_rows(encode):
    for sentence in sentences():
        tokens = encode(sentence)
        yield {"input_ids": tokens, "labels": [*reversed(tokens[2:]), 3]}


KINDS = {
    "causal": (heads.gpt2, causal_rows, hf.DataCollatorForSeq2Seq, hf.AutoModelForCausalLM),
    "masked": (heads.HEADS["bert masked"][0], masked_rows, hf.DataCollatorForSeq2Seq, hf.AutoModelForMaskedLM),
    "tagging": (
        heads.HEADS["bert tokens"][0],
        tagged_rows,
        hf.DataCollatorForTokenClassification,
        hf.AutoModelForTokenClassification,
    ),
    "classification": (
        tiny.bert,
        classified_rows,
        hf.DataCollatorWithPadding,
        hf.AutoModelForSequenceClassification,
    ),
    "seq2seq": (
        heads.HEADS["t5 generation"][0],
        translated_rows,
        hf.DataCollatorForSeq2Seq,
        hf.AutoModelForSeq2SeqLM,
    ),
}


def unlearner_for(kind, directory, padding_side="right", data_collator=None, model=None, others=None, **settings):
    make_model, make_rows, collator, _ = KINDS[kind]
    encoder = tokenizer(padding_side)
    rows = datasets.Dataset.from_list(
        list(make_rows(lambda text: encoder(text, add_special_tokens=False)["input_ids"]))
    )
    if isinstance(data_collator, hf.DataCollatorForLanguageModeling):
        rows = rows.remove_columns("labels")
    torch.manual_seed(0)
    arguments = {
        "eval_dataset": rows.select(range(28, 34)),
        "unseen_dataset": rows.select(range(34, 40)),
        "processing_class": encoder,
    }
    return FisherUnlearner(
        model or tiny.randomized(make_model(), torch.float32),
        config(directory, **settings),
        data_collator or collator(encoder),
        forget_dataset=rows.select(range(8)),
        retain_dataset=rows.select(range(8, 28)),
        **arguments | (others or {}),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_model_is_unlearned_with_the_figures_that_fit_it(tmp_path, kind):
    unlearner = unlearner_for(kind, tmp_path / "clean")
    report = unlearner.unlearn()
    assert UnlearningReport.load(tmp_path / "clean" / "report.json") == report
    loaded = KINDS[kind][3].from_pretrained(tmp_path / "clean")
    state = unlearner.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    before, after = report.stages["before"], report.stages["after_repair"]
    assert after.splits["retain"].mean_loss < before.splits["retain"].mean_loss
    figures, text = after.figures(), str(report)
    if kind == "classification":
        assert after.splits["forget"].tokens is None
        assert after.min_k_membership is None
        assert "forget accuracy" in figures
        return
    tokens = after.splits["forget"].tokens
    assert tokens.num_tokens == sum(sum(label != -100 for label in row["labels"]) for row in unlearner.forget_dataset)
    assert after.splits["forget"].mean_loss > 0
    assert after.min_k_membership.num_unseen == after.membership.num_unseen == 6
    names = ["token accuracy", "perplexity", "all tokens right"]
    if kind in ("causal", "seq2seq"):
        names = ["token accuracy", "perplexity", "extraction strength", "verbatim"]
        assert "of 8 forgotten texts are still completed verbatim (before: " in text
    else:
        assert "of 8 forget examples still have every scored token right (before: " in text
    assert [name for name in figures if name.startswith("forget")] == [f"forget {name}" for name in names]
    assert "Min-K% membership AUC" in figures
    assert ("accuracy by class (tokens)" in text) == (kind == "tagging")
    assert ("by class" in text) == (kind == "tagging")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A causal language model that knows its sentences by heart."""
    unlearner = unlearner_for("causal", tmp_path_factory.mktemp("learned") / "a")
    model, rows = unlearner.model.train(), [*unlearner.forget_dataset, *unlearner.retain_dataset]
    batch, optimizer = unlearner.data_collator(rows), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize(
    "settings", [{}, {"target": "chance"}, {"exclude_modules": ["wte"]}, {"target_modules": ["wte"]}]
)
def test_the_selection_tries_all_weights_in_scope_and_leaves_the_model_as_it_was(tmp_path, learned, settings):
    settings = {"reset_fraction": None, "num_selection_trials": 2} | settings
    unlearner = unlearner_for("causal", tmp_path / "a", model=copy.deepcopy(learned), **settings)
    before = tiny.parameters_and_buffers(unlearner.model)
    pair = [unlearner.compute_fisher(data) for data in (unlearner.forget_dataset, unlearner.retain_dataset)]
    selection, search = unlearner.select_weights(*pair), unlearner.search
    assert len(search.trials) == 2
    assert (search.target, search.measure) == (settings.get("target", "unseen"), "token accuracy")
    assert 0 < search.chance < search.trials[search.chosen].retain <= search.before.retain
    assert ("transformer.wte.weight" in selection.num_weights) == ("exclude_modules" not in settings)
    if "target_modules" in settings:
        assert set(selection.num_weights) == {"transformer.wte.weight"}
    after = tiny.parameters_and_buffers(unlearner.model)
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("kind", ["causal", "masked", "tagging", "seq2seq"])
def test_a_tokenizer_that_pads_at_the_left_gives_the_same_figures(tmp_path, kind):
    first, second = (
        unlearner_for(kind, tmp_path / side, side).evaluate_unlearning().figures() for side in ("right", "left")
    )
    assert first == pytest.approx(second, rel=1e-5)


def test_random_masks_are_the_same_in_every_pass_and_new_in_the_repair(tmp_path):
    for number, seed in enumerate((None, 5)):
        collator = hf.DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.4, seed=seed)
        unlearner = unlearner_for("masked", tmp_path / str(number), data_collator=collator)
        state = torch.get_rng_state()
        first = unlearner.evaluate_unlearning()
        assert torch.equal(torch.get_rng_state(), state)
        next(iter(unlearner.get_train_dataloader()))
        assert unlearner.evaluate_unlearning() == first
        forget = unlearner.compute_fisher(unlearner.forget_dataset).mean()
        again = unlearner.compute_fisher(unlearner.forget_dataset).mean()
        assert all(torch.equal(value, again[name]) for name, value in forget.items())
        masks = [batch["labels"] for _ in range(2) for batch in [next(iter(unlearner.get_train_dataloader()))]]
        assert masks[0].shape != masks[1].shape or not torch.equal(*masks)


def test_a_masked_language_model_has_no_natural_reset_since_its_masks_are_drawn_batch_by_batch(tmp_path):
    collator = hf.DataCollatorForLanguageModeling(tokenizer(), mlm_probability=0.4)
    checkpoint = KINDS["masked"][0]()
    model = tiny.randomized(copy.deepcopy(checkpoint), torch.float32)
    checkpoint.save_pretrained(tmp_path / "checkpoint")
    settings = {"pretrained_model": str(tmp_path / "checkpoint"), "gamma": None, "selection": "auto"}
    settings |= {"data_collator": collator, "model": model, "reset_fraction": None}
    assert unlearner_for("masked", tmp_path / "out", **settings).reset_value == "pretrained"
    with pytest.raises(ValueError, match="masks are drawn batch by batch"):
        unlearner_for("masked", tmp_path / "asked", **settings, reset_value="natural")


def test_metrics_of_a_language_model_get_what_the_preprocessing_left(tmp_path):
    def token_accuracy(outcome):
        assert outcome.predictions.ndim == 2
        scored = outcome.label_ids[:, 1:] != -100
        return {"again": (outcome.predictions[:, :-1] == outcome.label_ids[:, 1:])[scored].mean()}

    unlearner = unlearner_for(
        "causal",
        tmp_path / "a",
        others={
            "compute_metrics": token_accuracy,
            "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
        },
    )
    for result in unlearner.evaluate_unlearning().splits.values():
        assert result.metrics["again"] == pytest.approx(result.tokens.accuracy)


def test_a_leftover_column_of_numbers_is_no_label_of_a_language_model(tmp_path):
    assert num_classes(heads.gpt2()) is None
    assert heads.gpt2().config.num_labels == 2
    assert num_classes(heads.HEADS["bert choice"][0]()) is None
    assert num_classes(tiny.bert()) == tiny.NUM_LABELS
    rows = datasets.Dataset.from_dict({"input_ids": [[4, 5, 6, 7 + n] for n in range(12)], "label": range(7, 19)})

    def collate(features):
        tokens = torch.tensor([row["input_ids"] for row in features])
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens}

    unlearner = FisherUnlearner(
        tiny.randomized(heads.gpt2(), torch.float32),
        config(tmp_path / "a"),
        collate,
        forget_dataset=rows.select(range(4)),
        retain_dataset=rows.select(range(4, 12)),
    )
    assert unlearner.evaluate_unlearning().splits["forget"].tokens.num_tokens == 12


def test_a_language_model_is_rewound_to_the_checkpoint_it_came_from(tmp_path):
    rewinding = {"reset_value": "pretrained", "pretrained_model": str(tmp_path / "base")}
    before = unlearner_for("causal", tmp_path / "x").model
    before.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="equals the model in all"):
        unlearner_for("causal", tmp_path / "clean", **rewinding)
    heads.gpt2(n_inner=8).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"of another size .*: transformer.h.0.mlp.c_fc.weight \(16x8, here 16x64\)"):
        unlearner_for("causal", tmp_path / "clean", **rewinding | {"pretrained_model": str(tmp_path / "other")})
    assert not (tmp_path / "clean").exists()
    model = tiny.randomized(tiny.randomized(heads.gpt2()), torch.float32)
    unlearner = unlearner_for("causal", tmp_path / "clean", model=model, num_train_epochs=0, **rewinding)
    report = unlearner.unlearn()
    assert report.settings["reset_value"] == "pretrained"
    assert sum(map(len, unlearner.selection.indices.values())) == report.integrity.num_selected_changed
    for name, indices in unlearner.selection.indices.items():
        assert torch.equal(model.get_parameter(name).take(indices), before.get_parameter(name).take(indices))
