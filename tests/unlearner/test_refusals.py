# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import pytest
import torch

from hf_deepclean import FisherUnlearner, UnlearningReport
from tests import tiny
from tests.unlearner.runs import FORGET, UNSEEN, config, splits, unlearner_for, vit


def test_excluded_modules_are_left_alone(tmp_path):
    model = vit()
    before = model.classifier.weight.detach().clone()
    unlearner_for(tmp_path / "a", model, exclude_modules=["classifier"]).unlearn()
    assert torch.equal(model.classifier.weight, before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda d: {"forget_dataset": d.select([])}, "`forget_dataset` is empty"),
        (lambda d: {"retain_dataset": d.select([])}, "`retain_dataset` is empty"),
        (lambda d: {"retain_dataset": d.select(range(22, 60))}, "2 of 24 rows of `forget_dataset`"),
        (lambda d: {"forget_dataset": d.select(FORGET).remove_columns("labels")}, "`forget_dataset` has no labels"),
        (lambda d: {"unseen_dataset": d.select(UNSEEN).remove_columns("labels")}, "`unseen_dataset` has no labels"),
    ],
)
def test_bad_data_are_refused_before_any_work(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        unlearner_for(tmp_path / "a", data=splits(**data(tiny.digits())))
    assert not (tmp_path / "a" / "report.json").exists()


def test_patterns_and_checkpoints_that_do_not_exist_are_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="matches no module"):
        unlearner_for(tmp_path / "a", target_modules=["clasifier"])
    with pytest.raises(OSError, match="nowhere"):
        unlearner_for(tmp_path / "a", reset_value="pretrained", pretrained_model=str(tmp_path / "nowhere"))


def test_rewinding_to_a_checkpoint_runs_end_to_end(tmp_path):
    base = vit()
    base.save_pretrained(tmp_path / "base")
    model = vit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01
    arguments = {"reset_value": "pretrained", "pretrained_model": str(tmp_path / "base"), "num_train_epochs": 0}
    unlearner = unlearner_for(tmp_path / "a", model, **arguments)
    unlearner.unlearn()
    for name, indices in unlearner.selection.indices.items():
        cleaned, before = (dict(m.named_parameters())[name].flatten()[indices] for m in (model, base))
        assert torch.equal(cleaned, before)


def test_labels_outside_the_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="outside the head's range 0 to 3"):
        unlearner_for(tmp_path / "a", tiny.vit(num_labels=4))


@pytest.mark.parametrize("split", ["forget_dataset", "retain_dataset", "eval_dataset", "unseen_dataset"])
def test_classes_that_the_model_orders_in_another_way_are_refused_in_every_data_set(tmp_path, split):
    names = [*"abcdefghij"]
    model = vit()
    model.config.id2label = dict(enumerate(names))
    data = splits(eval_dataset=tiny.digits().select(range(160, 170)))
    feature = datasets.ClassLabel(names=names)
    FisherUnlearner(
        model, config(tmp_path), **{name: rows.cast_column("labels", feature) for name, rows in data.items()}
    )
    data[split] = data[split].cast_column("labels", datasets.ClassLabel(names=names[::-1]))
    with pytest.raises(ValueError, match=f"`{split}` numbers its classes in another way than the model"):
        FisherUnlearner(model, config(tmp_path), **data)


def test_an_output_directory_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        unlearner_for(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", num_train_epochs=1)
    unlearner.unlearn()
    with pytest.raises(FileExistsError, match="Nothing is ever overwritten"):
        unlearner.unlearn()


def test_a_model_that_is_no_pretrained_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not a `PreTrainedModel`"):
        unlearner_for(tmp_path / "a", torch.nn.Linear(2, 2))


def test_phases_out_of_order_are_refused(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    with pytest.raises(RuntimeError, match="Call `select_weights` first"):
        unlearner.reset_weights()
    with pytest.raises(RuntimeError, match="`train` repairs the weights that were reset"):
        unlearner.train()


def test_a_repair_that_diverges_stops_with_what_to_do(tmp_path):
    unlearner = unlearner_for(tmp_path / "a", learning_rate=1e30)
    with pytest.raises(ValueError, match="Lower `learning_rate`"):
        unlearner.unlearn()
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_a_failure_while_saving_leaves_no_half_written_output(tmp_path, monkeypatch):
    def full_disk(self, path):
        raise OSError("No space left on device")

    monkeypatch.setattr(UnlearningReport, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        unlearner_for(tmp_path / "a", num_train_epochs=0).unlearn()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["_unlearning_state"]


def test_a_launch_whose_processes_do_not_know_of_each_other_is_refused_with_the_fix(tmp_path, monkeypatch):
    args = config(tmp_path / "a")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RuntimeError, match="3 processes were launched, but each of them sees 1.*use_cpu=True"):
        FisherUnlearner(vit(), args, **splits())


@pytest.mark.parametrize(("variable", "name"), [("DEEPSPEED", "DeepSpeed.*ZeRO-3"), ("FSDP", "FSDP by Accelerate")])
def test_engines_that_shard_too_late_are_refused_by_name(tmp_path, monkeypatch, variable, name):
    args = config(tmp_path / "a")
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(ValueError, match=f"{name}.*distributed_config"):
        FisherUnlearner(vit(), args, **splits())


def test_there_is_nothing_to_publish_before_the_run_is_finished(tmp_path):
    unlearner = unlearner_for(tmp_path / "a")
    for publish in (unlearner.push_to_hub, unlearner.save_pretrained):
        with pytest.raises(FileNotFoundError, match=r"call `unlearn\(\)` first"):
            publish("me/clean")


def test_nothing_of_the_forget_data_is_in_the_report(tmp_path):
    unlearner_for(tmp_path / "a", num_train_epochs=1).unlearn()
    text = (tmp_path / "a" / "report.json").read_text()
    image = tiny.digits()[0]["pixel_values"].flatten().tolist()
    assert str(image[:6])[1:-1] not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("phase", ["compute_fisher", "select_weights", "reset_weights", "evaluate_unlearning"])
@pytest.mark.parametrize("work", ["unlearn", "preview"])
def test_a_phase_of_ones_own_that_a_run_would_leave_out_is_refused(tmp_path, phase, work):
    class Own(FisherUnlearner):
        pass

    setattr(Own, phase, lambda self, *args: None)
    data = {name: data for name, data in splits().items() if name in ("forget_dataset", "retain_dataset")}
    with pytest.raises(TypeError, match=f"Own overrides `{phase}`"):
        getattr(Own(vit(), config(tmp_path / "a"), **data), work)()
    assert not (tmp_path / "a").exists()


def test_a_run_within_inference_mode_has_its_gradients_and_a_model_made_there_is_refused(tmp_path):
    with torch.inference_mode():
        made_there = tiny.vit(num_labels=10)
    with pytest.raises(ValueError, match="was made within `torch.inference_mode`"):
        unlearner_for(tmp_path / "a", made_there)
    model = vit()
    with torch.inference_mode():
        report = unlearner_for(tmp_path / "a", model, num_train_epochs=1).unlearn()
    assert "after_repair" in report.stages
