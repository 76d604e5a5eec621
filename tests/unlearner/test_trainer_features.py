# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)

from hf_deepclean import FisherUnlearner
from hf_deepclean.repair.trainer import RepairTrainer
from tests import tiny
from tests.unlearner.runs import FORGET, RETAIN, UNSEEN, config, fishers, splits, unlearner_for, vit


def test_what_a_trainer_user_relies_on_keeps_working(tmp_path):
    steps = []

    class Counter(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)

    def accuracy(outcome):
        return {"accuracy_again": (outcome.predictions.argmax(-1) == outcome.label_ids).mean()}

    data = splits(
        eval_dataset={"one": tiny.digits().select(range(160, 190)), "two": tiny.digits().select(range(190, 220))}
    )
    unlearner = FisherUnlearner(
        vit(),
        config(
            tmp_path / "a",
            logging_steps=1,
            lr_scheduler_type="linear",
            eval_strategy="epoch",
            label_smoothing_factor=0.1,
            bf16=True,
            use_cpu=True,
            max_grad_norm=0.1,
        ),
        callbacks=[Counter()],
        compute_metrics=accuracy,
        **data,
    )
    report = unlearner.unlearn()
    history = unlearner.state.log_history
    assert steps == list(range(1, 13))
    assert [entry["learning_rate"] for entry in history if "loss" in entry] == pytest.approx(
        # By default a tenth of the steps, rounded down, is a warm-up.
        [1e-2 * min(step / 1, (12 - step) / 11) for step in range(12)]
    )
    assert all(entry["grad_norm"] > 0 for entry in history if "loss" in entry)
    assert sum("eval_one_accuracy_again" in entry for entry in history) == 2
    split = report.stages["after_repair"].splits["eval_two"]
    assert split.metrics["accuracy_again"] == pytest.approx(split.accuracy)
    assert unlearner.args.max_grad_norm == 0.1
    assert "eval_loss" in unlearner.evaluate(tiny.digits().select(range(20)))


def test_fishers_and_evaluations_run_in_the_precision_of_the_training(tmp_path, monkeypatch):
    model, dtypes, phases = vit(), set(), []
    arguments = TrainingArguments(str(tmp_path / "t"), max_steps=1, bf16=True, use_cpu=True, report_to="none")
    trainer = Trainer(model, arguments, train_dataset=tiny.digits().select(range(8)))
    trainer.train()
    linear = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    linear.register_forward_hook(lambda module, _, output: dtypes.add(output.dtype))
    unlearner = FisherUnlearner(
        model, config(tmp_path / "a", bf16=True, use_cpu=True, random_mask_control=True), **splits()
    )
    # The rehearsal trains in the precision of the repair, and checks the likelihood in the model's own.
    assert dtypes == {torch.float32, torch.bfloat16}
    dtypes.clear()
    train = RepairTrainer.train

    def train_apart(trainer, *args, **kwargs):
        phases.append(set(dtypes))
        dtypes.clear()
        train(trainer, *args, **kwargs)
        phases.append(set(dtypes))
        dtypes.clear()

    with monkeypatch.context() as patch:
        patch.setattr(RepairTrainer, "train", train_apart)
        report = unlearner.unlearn()
    phases.append(set(dtypes))
    assert phases == [{torch.bfloat16}] * 5
    assert report.settings["fisher_autocast"] == "bfloat16" and "under autocast to bfloat16" in str(report)
    evaluated = unlearner.evaluate(splits()["unseen_dataset"])["eval_loss"]
    assert report.stages["after_repair"].splits["unseen"].mean_loss == pytest.approx(evaluated, rel=1e-5)
    images = torch.stack([row["pixel_values"] for row in splits()["unseen_dataset"]])
    loaded = ViTForImageClassification.from_pretrained(tmp_path / "a").eval()
    assert torch.equal(model.eval()(images).logits, loaded(images).logits)
    dtypes.clear()
    trainer.train()
    assert dtypes == {torch.bfloat16}


def test_the_logged_gradient_norm_is_that_of_the_selected_weights(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", logging_steps=1, max_steps=1, reset_fraction=0.001)
    unlearner.unlearn()
    norm = next(entry["grad_norm"] for entry in unlearner.state.log_history if "grad_norm" in entry)
    moments = [state["exp_avg"] for state in unlearner.optimizer.state_dict()["state"].values()]
    clip = min(1.0, 1.0 / (norm + 1e-6))
    assert torch.cat(moments).norm().item() / 0.1 == pytest.approx(norm * clip, rel=1e-4)


def test_label_smoothing_is_that_of_the_trainer(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", label_smoothing_factor=0.3)
    rows = [tiny.digits()[index] for index in RETAIN]
    batch = {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.stack([row["labels"] for row in rows]),
    }
    outputs = unlearner.model(pixel_values=batch["pixel_values"])
    ours = unlearner.compute_loss(unlearner.model, dict(batch))
    assert ours.item() == pytest.approx(unlearner.label_smoother(outputs, batch["labels"]).item(), rel=1e-5)
    with pytest.raises(ValueError, match="Leave one of the two out"):
        FisherUnlearner(
            vit(),
            config(tmp_path / "b", label_smoothing_factor=0.3),
            log_likelihood_func=lambda outputs, labels: outputs.logits[:, 0],
            **splits(),
        )


def test_from_trainer_takes_over_model_data_and_arguments(tmp_path):
    class Mine(TrainerCallback):
        pass

    data = splits()
    args = TrainingArguments(
        str(tmp_path / "model"),
        learning_rate=5e-3,
        num_train_epochs=1,
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        optim="sgd",
        disable_tqdm=True,
    )
    trainer = Trainer(vit(), args, train_dataset=data["retain_dataset"], eval_dataset=tiny.digits().select(UNSEEN))
    trainer.add_callback(Mine)
    unlearner = FisherUnlearner.from_trainer(
        trainer, forget_dataset=data["forget_dataset"], retain_dataset=data["retain_dataset"], gamma=1.0
    )
    assert unlearner.model is trainer.model
    assert unlearner.args.learning_rate == 5 * 5e-3
    assert unlearner.args.selection == "gamma"
    assert unlearner.args.output_dir == str(tmp_path / "model-unlearned")
    kinds = [type(callback) for callback in unlearner.callback_handler.callbacks]
    assert Mine in kinds
    assert len(kinds) == len(set(kinds))
    assert list(unlearner.unlearn().stages["before"].splits) == ["forget", "retain", "eval"]

    trainer.compute_loss_func = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match="`compute_loss_func`"):
        FisherUnlearner.from_trainer(
            trainer, forget_dataset=data["forget_dataset"], retain_dataset=data["retain_dataset"]
        )


def test_accepts_a_path_plain_arguments_other_data_sets_and_a_collator(tmp_path):
    tiny.trained().save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def rows(positions):
        digits = [tiny.digits()[position] for position in positions]
        return tiny.Rows([{"image": row["pixel_values"], "digit": row["labels"]} for row in digits])

    def collate(rows):
        return {
            "pixel_values": torch.stack([row["image"] for row in rows]),
            "labels": torch.stack([row["digit"] for row in rows]),
        }

    args = TrainingArguments(
        str(tmp_path / "a"), num_train_epochs=1, disable_tqdm=True, remove_unused_columns=False, learning_rate=1e-3
    )
    unlearner = FisherUnlearner(
        str(tmp_path / "model"), args, collate, forget_dataset=rows(FORGET), retain_dataset=rows(RETAIN)
    )
    report = unlearner.unlearn()
    assert report.selection.rule == report.settings["selection"] == "auto"
    assert report.stages["after_repair"].membership is None
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == files


def test_a_text_classifier_with_its_tokenizer_and_sentences_of_any_length(tmp_path):
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *"abcdefghij"])}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    generator = np.random.default_rng(0)
    sentences = [" ".join(generator.choice([*"abcdefghij"], size=generator.integers(2, 12))) for _ in range(90)]
    rows = {"text": sentences, "label": [sentence.count("a") % 2 for sentence in sentences]}
    dataset = datasets.Dataset.from_dict(rows).map(lambda row: tokenizer(row["text"]), keep_in_memory=True)
    torch.manual_seed(0)
    unlearner = FisherUnlearner(
        tiny.randomized(tiny.bert(num_labels=2), torch.float32),
        config(tmp_path / "a"),
        forget_dataset=dataset.select(range(10)),
        retain_dataset=dataset.select(range(10, 70)),
        unseen_dataset=dataset.select(range(70, 90)),
        processing_class=tokenizer,
    )
    report = unlearner.unlearn()
    assert report.fisher_fallback == {}
    assert "bert.embeddings.word_embeddings" in report.selection.per_module
    assert report.settings["reset_value"] == "init"
    assert report.stages["after_repair"].membership.num_unseen == 20
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded("a b")["input_ids"] == tokenizer("a b")["input_ids"]
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "a").config.problem_type is None


def test_without_epochs_there_is_a_reset_and_no_repair(tmp_path):
    report = unlearner_for(tmp_path / "a", num_train_epochs=0).unlearn()
    assert report.stages["after_repair"] == report.stages["after_reset"]


def test_fisher_max_examples_draws_that_many_by_the_seed(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", fisher_max_examples=30)
    forget, retain = fishers(unlearner)
    assert (forget.num_examples, retain.num_examples) == (24, 30)
    again = unlearner.compute_fisher(unlearner.retain_dataset)
    assert all(torch.equal(total, again.sums[name]) for name, total in retain.sums.items())


@pytest.mark.parametrize("fisher_type", ["sampled", "expected"])
def test_the_other_fisher_types_run_end_to_end(tmp_path, fisher_type):
    report = unlearner_for(tmp_path / "a", fisher_type=fisher_type, num_train_epochs=1).unlearn()
    assert report.settings["fisher_type"] == fisher_type


def test_the_fisher_batch_size_changes_nothing_but_rounding(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    first = unlearner.compute_fisher(unlearner.retain_dataset).mean()
    unlearner.args.per_device_fisher_batch_size = 7
    second = unlearner.compute_fisher(unlearner.retain_dataset).mean()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=1e-3, atol=1e-6 * value.max().item() + 1e-12)


def test_what_is_set_after_construction_takes_effect(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", num_train_epochs=0)
    unlearner.unseen_dataset, unlearner.eval_dataset = None, tiny.digits().select(range(160, 170))
    unlearner.reference_model = vit()
    report = unlearner.unlearn()
    assert report.stages["before"].splits["eval"].num_examples == 10
    assert report.stages["before"].membership is None
    assert report.stages["before"].divergence_to_reference is not None
