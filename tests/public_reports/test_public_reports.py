# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
"""What public reports of neighbouring projects describe, tried on this one. `README.md` lists them by number."""

import copy
import logging

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    PatchTSTConfig,
    PatchTSTForClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_deepclean import FisherUnlearner, accumulate_fisher_diagonal
from tests import tiny
from tests.models.adapters import examples
from tests.public_reports.small_runs import (
    bert,
    classified,
    gpt2,
    in_batches_and_alone,
    largest_difference,
    llama,
    neox,
    padded,
    parts,
    texts,
    unlearner,
)
from tests.tokenizers import byte_tokenizer
from tests.unlearner.runs import config


class BatchSecondConfig(PreTrainedConfig):
    model_type = "batch_second"


class BatchSecond(PreTrainedModel):
    """Embedding and attention get the tokens as the first axis, the examples as the second."""

    config_class = BatchSecondConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding, self.attention = nn.Embedding(50, 8), nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, labels=None):
        hidden = self.embedding(input_ids.T)
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        logits = self.head(hidden.mean(0))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def partly_frozen():
    model = bert()
    model.classifier.weight.requires_grad_(False)
    model.bert.encoder.layer[0].output.dense.bias.requires_grad_(False)
    return model


TOKENS = torch.randint(3, 50, (4, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make_model", "labels"),
    [
        pytest.param(gpt2, TOKENS, id="1-and-4"),
        pytest.param(lambda: BatchSecond(BatchSecondConfig(num_labels=3)), [0, 1, 2, 1], id="2-and-5"),
        pytest.param(partly_frozen, [0, 1, 2, 1], id="3"),
    ],
)
def test_examples_are_told_apart_whatever_the_shapes_inside_the_model(make_model, labels):
    one, other = in_batches_and_alone(make_model(), {"input_ids": TOKENS, "labels": torch.as_tensor(labels)})
    assert largest_difference(one, other) < 1e-12


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "make_model", [pytest.param(llama, id="19"), pytest.param(neox, id="20"), pytest.param(gpt2, id="22")]
)
def test_the_side_of_the_padding_does_not_change_the_fisher(make_model, side):
    rows = texts(8, lengths=(4, 9, 6)).to_list()
    model = make_model().double().eval()
    alone = accumulate_fisher_diagonal(model, [padded([row]) for row in rows])
    together = accumulate_fisher_diagonal(model, [padded(rows, side)])
    assert largest_difference(alone, together) < 1e-9


def test_21_in_half_precision_padding_moves_the_fisher_by_rounding_alone():
    rows = texts(8, lengths=(4, 9, 6)).to_list()
    model = llama().bfloat16().eval()
    alone = accumulate_fisher_diagonal(model, [padded([row]) for row in rows])
    together = accumulate_fisher_diagonal(model, [padded(rows)])
    assert largest_difference(alone, together) < 0.1


@pytest.mark.parametrize("accumulation", [pytest.param(2, id="16"), pytest.param(4, id="17-and-18")])
def test_accumulated_steps_of_unequal_texts_repair_like_one_batch(accumulation, tmp_path):
    cleaned = []
    for steps in (1, accumulation):
        options = {"per_device_train_batch_size": 8 // steps, "gradient_accumulation_steps": steps}
        run = unlearner(tmp_path / str(steps), llama().double(), parts(texts(lengths=(4, 9, 6))), padded, **options)
        run.unlearn()
        cleaned.append(run.model.state_dict())
    assert all(torch.allclose(cleaned[0][name], cleaned[1][name], atol=1e-12) for name in cleaned[0])


def answers(model, ids=((5, 6, 7, 8),)):
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits


def test_8_an_adapter_on_a_tied_head_is_cleaned_and_leaves_the_embedding_alone(tmp_path):
    base = llama(tie_word_embeddings=True)
    before = base.get_input_embeddings().weight.detach().clone()
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    examples.trained(model)
    run = unlearner(tmp_path / "a", model, parts(texts()), reset_scope="adapter", reset_fraction=0.3)
    run.unlearn()
    assert torch.equal(base.get_input_embeddings().weight, before)


@pytest.mark.parametrize("module", [pytest.param("lm_head", id="9"), pytest.param("embed_tokens", id="10")])
def test_a_merged_adapter_that_untied_a_tied_model_answers_the_same_when_the_result_is_loaded(module, tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=[module], task_type="CAUSAL_LM")
    model = get_peft_model(llama(tie_word_embeddings=True), lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    merged = model.merge_and_unload()
    merged.requires_grad_(True)
    run = unlearner(tmp_path / "a", merged, parts(texts()))
    run.unlearn()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert torch.equal(answers(run.model), answers(loaded))


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


@pytest.mark.parametrize(
    "metric", [pytest.param("eval_loss", id="12-and-45"), pytest.param("eval_accuracy", id="11-and-13")]
)
def test_an_adapter_has_its_metrics_and_the_best_checkpoint_is_found_by_them(metric, tmp_path):
    model = get_peft_model(bert(), LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS"))
    examples.trained(model)
    run = unlearner(
        tmp_path / "a",
        model,
        parts(classified()),
        eval_dataset=classified(64).select(range(48, 64)),
        compute_metrics=accuracy,
        reset_scope="adapter",
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        num_train_epochs=2,
    )
    report = run.unlearn()
    assert report.stages["after_repair"].splits["eval"].metrics.keys() == {"accuracy"}
    assert all(metric in entry for entry in run.state.log_history if "eval_runtime" in entry)


def test_24_and_25_a_tied_model_is_saved_in_checkpoints_and_at_the_end(tmp_path):
    run = unlearner(tmp_path / "a", gpt2(), parts(texts()), save_strategy="steps", save_steps=2)
    run.unlearn()
    assert torch.equal(answers(run.model), answers(AutoModelForCausalLM.from_pretrained(tmp_path / "a")))


def test_26_weights_that_share_memory_without_a_declaration_are_refused_before_any_work(tmp_path):
    model = bert()
    model.bert.encoder.layer[1].output.dense.weight = model.bert.encoder.layer[0].output.dense.weight
    with pytest.raises(RuntimeError, match="shared tensors"):
        unlearner(tmp_path / "a", model, parts(classified()))
    assert not list(tmp_path.glob("a/*"))


def masked(rows, places):
    labels = [[-100] * 8 if place in places else row for place, row in enumerate(rows["labels"])]
    return Dataset.from_dict(rows.to_dict() | {"labels": labels})


def test_27_and_28_texts_of_which_nothing_is_scored_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No row of `forget_dataset` has a label that is scored.*`max_length`"):
        unlearner(tmp_path / "a", llama(), parts(masked(texts(), range(8))))


def test_29_single_texts_of_which_nothing_is_scored_are_told_and_have_no_part_in_the_repair(tmp_path, caplog):
    data = parts(masked(texts(), {3, 8, 9}))
    with caplog.at_level(logging.WARNING):
        run = unlearner(tmp_path / "a", llama(), data, per_device_train_batch_size=1)
    assert "1 of 8 rows of `forget_dataset` have no label that is scored" in caplog.text
    assert "2 of 40 rows of `retain_dataset`" in caplog.text and "at place 0." in caplog.text
    report = run.unlearn()
    assert np.isfinite(report.stages["after_repair"].splits["retain"].mean_loss)


def images(size=48):
    generator = np.random.default_rng(0)
    pixels = generator.normal(size=(size, 1, 16, 16)).astype("float32")
    return Dataset.from_dict({"pixel_values": pixels, "labels": generator.integers(0, 4, size)})


@pytest.mark.parametrize("tracks", [pytest.param(True, id="30"), pytest.param(False, id="31")])
def test_statistics_of_batch_normalisation_do_not_move(tracks, tmp_path):
    sizes = {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    model = ResNetForImageClassification(ResNetConfig(**sizes, num_labels=4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = tracks
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    unlearner(tmp_path / "a", model, parts(images())).unlearn()
    assert before and all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def with_names(names, of_data):
    numbers = {name: number for number, name in enumerate(names)}
    model = bert(len(names), id2label=dict(enumerate(names)), label2id=numbers)
    data = classified(num_labels=min(len(names), len(of_data)))
    return model, parts(data.cast_column("labels", ClassLabel(names=of_data)))


DIGITS = [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("names", "of_data"),
    [
        pytest.param(["up", "down", "on"], ["down", "on", "silence", "up"], id="32"),
        pytest.param(["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], ["entailment", "neutral", "contradiction"], id="33"),
        pytest.param([f"class {name}" for name in DIGITS], sorted(f"class {name}" for name in DIGITS), id="34"),
    ],
)
def test_classes_that_the_data_name_in_another_order_than_the_model_are_refused(names, of_data, tmp_path):
    model, data = with_names(names, of_data)
    with pytest.raises(ValueError, match="forget_dataset"):
        unlearner(tmp_path / "a", model, data)


def test_35_a_label2id_that_contradicts_id2label_does_not_move_the_classes(tmp_path):
    model = bert(4, id2label={0: "a", 1: "b", 2: "c", 3: "d"}, label2id={"a": 0, "b": 1, "c": 3, "d": 4})
    report = unlearner(tmp_path / "a", model, parts(classified())).unlearn()
    assert list(report.stages["before"].splits["retain"].per_class) == ["a", "b", "c", "d"]


def test_36_where_padding_is_the_end_of_a_text_the_repair_scores_what_the_callers_collator_scores(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token or tokenizer.pad_token
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    rows = [{"input_ids": tokenizer(f"row {place}")["input_ids"]} for place in range(48)]
    model = llama(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    run = unlearner(tmp_path / "a", model, parts(Dataset.from_list(rows)), collator)
    batch = collator(rows[:8])
    expected = int((batch["labels"][:, 1:] != -100).sum())
    assert run.evaluate_unlearning().splits["forget"].tokens.num_tokens == expected


RAW = Dataset.from_dict({"text": [f"row {place}" for place in range(48)], "label": [n % 4 for n in range(48)]})


def collate_text(rows):
    encoded = byte_tokenizer()([row["text"] for row in rows], padding=True, return_tensors="pt")
    return {**encoded, "labels": torch.tensor([row["label"] for row in rows])}


def tokenized(rows):
    encoded = byte_tokenizer()(rows["text"], padding="max_length", max_length=12, truncation=True)
    return {**encoded, "labels": rows["label"]}


@pytest.mark.parametrize(
    ("rows", "collator"),
    [
        pytest.param(RAW, collate_text, id="37-39-and-44"),
        pytest.param(RAW.with_transform(tokenized), None, id="38"),
    ],
)
def test_columns_that_only_the_collator_or_a_transform_needs_are_named_as_the_cause(rows, collator, tmp_path):
    model = bert(vocab_size=len(byte_tokenizer()))
    with pytest.raises(ValueError, match="`forget_dataset` cannot be.*Set `remove_unused_columns=False`"):
        unlearner(tmp_path / "a", copy.deepcopy(model), parts(rows), collator)
    run = unlearner(tmp_path / "a", model, parts(rows), collator, remove_unused_columns=False)
    assert run.unlearn().stages["before"].splits["forget"].num_examples == 8


def test_40_a_data_set_without_any_column_of_the_model_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        unlearner(tmp_path / "a", bert(), parts(RAW.remove_columns("label")))


def test_41_a_method_that_forgets_nothing_says_so(tmp_path):
    digits = tiny.digits()
    data = {"forget_dataset": digits.select(range(24)), "retain_dataset": digits.select(range(24, tiny.NUM_TRAINED))}
    options = config(tmp_path / "a", reset_fraction=1e-4, learning_rate=1e-5, num_train_epochs=1)
    unseen = digits.select(range(tiny.NUM_TRAINED, tiny.NUM_TRAINED + 100))
    report = FisherUnlearner(tiny.trained(), options, **data, unseen_dataset=unseen).unlearn()
    known = report.stages["after_repair"].membership
    assert known.auc_interval[0] <= 0.5 or any("forget examples can be told" in text for text in report.shortfalls())


def test_42_a_reset_reaches_every_layer_and_not_only_those_with_reset_parameters(tmp_path):
    model = tiny.randomized(bert(dtype=torch.float32), torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    run = unlearner(tmp_path / "a", model, parts(classified()), reset_fraction=0.99, reset_value="init")
    run.select_weights(run.compute_fisher(run.forget_dataset), run.compute_fisher(run.retain_dataset))
    run.reset_weights()
    for name, indices in run.selection.indices.items():
        now = dict(run.model.named_parameters())[name].detach().flatten()[indices]
        assert not torch.equal(now, before[name].flatten()[indices]), name


def test_43_a_model_of_time_series_without_logits_is_refused_with_what_it_returns(tmp_path):
    sizes = {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": 8}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "num_targets": 3}
    model = PatchTSTForClassification(PatchTSTConfig(**sizes, use_cls_token=True))
    values = torch.randn(4, 16, 2)
    with pytest.raises(ValueError, match="no `logits` but hold.*`log_likelihood_func"):
        accumulate_fisher_diagonal(model, [{"past_values": values, "labels": torch.tensor([0, 1, 2, 1])}])
