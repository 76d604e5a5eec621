# Copyright 2026 The hf_deepclean authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from hf_deepclean import SparseAdamW, accumulate_fisher_diagonal, select_weights
from hf_deepclean.cli.commands import main
from hf_deepclean.planning.alternatives import find_alternatives
from hf_deepclean.planning.device import DEVICES, Device, calibrate
from hf_deepclean.planning.formulas import estimate_run
from hf_deepclean.planning.job import Job, Setting
from hf_deepclean.planning.model_size import ModelSize
from hf_deepclean.planning.report import EstimateReport
from hf_deepclean.planning.throughput import estimate_throughput
from tests import tiny
from tests.benchmarks.scale import BEGIN, ROOT, RUNS, compare, examples, measure_run, output_of


PAGE = ROOT / "recipes" / "scale.md"
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "hidden_size": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LLAMA = LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=100, use_cache=False)
JOB = Job(num_forget_examples=40, num_retain_examples=1000, tokens_per_example=128, num_eval_examples=100)
MODEL = ModelSize.of_weights(100_000_000)
DEVICE = Device("gpu", 80e9, dict.fromkeys(("float32", "tf32", "bfloat16"), 1e14), 1e12, 1e11, 1e10)


def small_models():
    gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_inner=96, vocab_size=100, use_cache=False)
    gpt2.resid_pdrop = gpt2.embd_pdrop = gpt2.attn_pdrop = 0.0
    return {
        "llama": lambda layers: LlamaForCausalLM(with_layers(LLAMA, layers)),
        "bert": lambda layers: BertForSequenceClassification(
            with_layers(BertConfig(**SIZES, **NO_DROPOUT, vocab_size=100), layers)
        ),
        "gpt2": lambda layers: GPT2LMHeadModel(with_layers(gpt2, layers)),
        "vit": lambda layers: ViTForImageClassification(
            with_layers(ViTConfig(**SIZES, image_size=32, patch_size=4), layers)
        ),
    }


def with_layers(config, layers):
    config = type(config)(**config.to_dict())
    config.num_hidden_layers = layers
    return config


def kept_for_backward(model, batch):
    """Bytes that autograd keeps, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(**batch)
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "bert", "gpt2", "vit"])
def test_a_layer_keeps_the_activations_of_the_formula(name, dtype):
    make = small_models()[name]
    batch = {"input_ids": torch.randint(2, 100, (3, 64))}
    if name == "vit":
        batch = {"pixel_values": torch.randn(3, 3, 32, 32).to(getattr(torch, dtype))}
    tokens = 3 * (65 if name == "vit" else 64)
    two, four = (kept_for_backward(make(layers).to(getattr(torch, dtype)), batch) for layers in (2, 4))
    size = ModelSize.of_model(make(2))
    assert (four - two) / 2 / tokens == pytest.approx(size.activation_bytes(4 if dtype == "float32" else 2), rel=0.03)


@pytest.mark.parametrize("name", ["llama", "bert", "gpt2", "vit"])
def test_the_forward_pass_has_the_operations_of_the_formula(name):
    from torch.utils.flop_counter import FlopCounterMode

    model = small_models()[name](2)
    # The counter does not see the fused attention kernel of the CPU.
    model.set_attn_implementation("eager")
    batch = {"input_ids": torch.randint(2, 100, (3, 64))}
    if name == "vit":
        batch = {"pixel_values": torch.randn(3, 3, 32, 32)}
    with FlopCounterMode(display=False) as counter:
        model.eval()(**batch)
    examples = len(next(iter(batch.values())))
    expected = examples * ModelSize.of_model(model).forward_flops(65 if name == "vit" else 64)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.1)


def test_sizes_of_a_configuration_are_those_of_the_model_on_the_meta_device(tmp_path):
    model = LlamaForCausalLM(LLAMA)
    model.save_pretrained(tmp_path)
    size = ModelSize.of_config(str(tmp_path / "config.json"))
    assert size == ModelSize.of_model(model)
    assert size.num_parameters == size.scope == sum(p.numel() for p in model.parameters())
    assert size.num_table_parameters == model.model.embed_tokens.weight.numel()


def test_a_tied_table_counts_as_the_output_layer():
    size = ModelSize.of_model(small_models()["gpt2"](2))
    assert size.num_table_parameters == 1024 * 32 and size.num_outputs == 100


def test_the_adapter_of_a_rank_has_as_many_weights_as_peft_makes():
    from peft import LoraConfig, get_peft_model

    base = ModelSize.of_model(LlamaForCausalLM(LLAMA))
    adapted = get_peft_model(
        LlamaForCausalLM(LLAMA), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    expected = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert base.with_adapter(4).scope == ModelSize.of_model(adapted).scope == expected


def test_sums_indices_and_optimizer_have_the_bytes_of_real_ones():
    model = tiny.randomized(LlamaForCausalLM(LLAMA), torch.float32)
    batches = [{"input_ids": torch.randint(2, 100, (4, 16)), "labels": torch.randint(2, 100, (4, 16))}]
    forget, retain = (accumulate_fisher_diagonal(model, batches) for _ in range(2))
    retain.sums["lm_head.weight"] += 1
    selection = select_weights(forget, retain, reset_fraction=0.25)
    optimizer = SparseAdamW(model.named_parameters(), selection.indices)
    model(**batches[0]).loss.backward()
    optimizer.step()
    job = replace(JOB, reset_fraction=selection.num_selected / selection.num_in_scope)
    phases = {
        phase.name: phase.device_bytes
        for phase in estimate_run(ModelSize.of_model(model), job, Setting(), DEVICE).phases
    }
    sums = sum(total.nbytes for fisher in (forget, retain) for total in fisher.sums.values())
    assert phases["retain Fisher"]["Fisher sums"] == sums == 2 * phases["forget Fisher"]["Fisher sums"]
    indices = sum(index.nbytes for index in selection.indices.values())
    moments = [state[key].nbytes for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert phases["repair"]["optimizer"] == pytest.approx(sum(moments))
    assert phases["repair"]["indices and old values"] == pytest.approx(indices + 4 * selection.num_selected)
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters())
    assert phases["repair"]["gradients"] == gradients == phases["repair"]["weights"]


def test_twice_the_processes_take_half_the_passes_and_never_more_memory():
    device = replace(DEVICE, link_bytes_per_second=math.inf)
    one, two = (
        estimate_run(MODEL, replace(JOB, num_retain_examples=100_000), Setting(num_processes=count), device)
        for count in (1, 2)
    )
    for single, double in zip(one.phases, two.phases, strict=True):
        if "Fisher" in single.name or single.name in ("evaluation", "repair"):
            assert double.seconds == pytest.approx(
                single.seconds / 2, rel=0.3 if single.name == "forget Fisher" else 0.05
            )
        assert double.peak == single.peak


def test_sharding_divides_what_belongs_to_weights_and_costs_communication():
    replicated, sharded = (
        {p.name: p for p in estimate_run(MODEL, JOB, Setting(num_processes=8, sharded=value), DEVICE).phases}
        for value in (False, True)
    )
    for kind in ("weights", "optimizer", "gradients", "indices and old values"):
        assert sharded["repair"].device_bytes[kind] == pytest.approx(replicated["repair"].device_bytes[kind] / 8)
    sums = [phases["retain Fisher"].device_bytes["Fisher sums"] for phases in (sharded, replicated)]
    assert sums[0] == pytest.approx(sums[1] / 8)
    assert "Fisher sums" not in replicated["repair"].device_bytes
    assert sharded["repair"].device_bytes["activations"] == replicated["repair"].device_bytes["activations"]
    assert sharded["retain Fisher"].seconds > replicated["retain Fisher"].seconds


def test_sums_on_the_host_leave_the_device():
    here, there = (
        {p.name: p for p in estimate_run(MODEL, JOB, Setting(accumulator_device=value), DEVICE).phases}
        for value in ("device", "cpu")
    )
    moved = here["retain Fisher"].device_bytes["Fisher sums"]
    assert there["retain Fisher"].host_bytes["Fisher sums"] == moved == 8 * MODEL.scope
    assert there["retain Fisher"].peak < here["retain Fisher"].peak
    assert there["retain Fisher"].seconds > here["retain Fisher"].seconds


def test_checkpointing_trades_memory_for_a_forward_pass():
    kept, checkpointed = (
        estimate_run(MODEL, JOB, Setting(gradient_checkpointing=value), DEVICE) for value in (False, True)
    )
    for less, more in zip(checkpointed.phases, kept.phases, strict=True):
        if "Fisher" in less.name or less.name == "repair":
            assert less.peak < more.peak and less.seconds > more.seconds


def test_a_kept_fisher_saves_the_pass_over_the_retain_data_alone():
    computed, kept = (
        estimate_run(MODEL, replace(JOB, kept_fisher=value), Setting(), DEVICE) for value in (False, True)
    )
    saved = {phase.name: phase.seconds for phase in computed.phases}["retain Fisher"]
    assert kept.seconds == pytest.approx(computed.seconds - saved)


def test_alternatives_that_fit_come_first_and_the_cheapest_of_them_before():
    every = find_alternatives(MODEL, JOB, Setting(num_processes=4), DEVICE, math.inf)
    memory = statistics.median(other.estimate.peak for other in every)
    found = find_alternatives(MODEL, JOB, Setting(num_processes=4), DEVICE, memory)
    assert len(found) == len(every) and {other.fits for other in found} == {True, False}
    keys = [(not other.fits, other.device_seconds if other.fits else other.estimate.peak) for other in found]
    assert keys == sorted(keys)
    assert all(other.estimate.fits(memory) == other.fits for other in found)


def test_what_fits_no_device_names_how_many_it_takes():
    report = EstimateReport.of(ModelSize.of_weights(int(7e10)), JOB, Setting("bfloat16"), DEVICES["h100-80gb"])
    assert not report.estimate.fits(80e9) and report.num_devices_needed in (2, 4, 8, 16, 32)
    assert f"it needs {report.num_devices_needed} devices" in str(report)


def test_requests_of_a_day_in_one_run_cost_little_more_than_one():
    day = estimate_throughput(MODEL, JOB, Setting(), DEVICE, num_requests=10)
    assert day.requests_per_day == pytest.approx(86400 / day.one_by_one)
    assert day.one_by_one * 0.5 < day.merged < 2 * day.one_by_one
    with pytest.raises(ValueError, match="forget more than"):
        estimate_throughput(MODEL, JOB, Setting(), DEVICE, num_requests=100)


@pytest.mark.parametrize("target", [1e8, 1e9, 8e9, 7e10])
def test_a_number_of_weights_gives_a_shape_that_has_them(target):
    size = ModelSize.of_weights(int(target))
    blocks = 12 * size.num_layers * size.hidden_size**2
    assert blocks + 2 * size.num_table_parameters == pytest.approx(target, rel=0.1)


def test_the_command_prints_a_table_or_json(capsys):
    arguments = ["estimate", "--num_parameters", "1e9", "--num_forget_examples", "10", "--num_retain_examples", "100"]
    arguments += ["--tokens_per_example", "128", "--device", "h100-80gb", "--requests_per_day", "5"]
    assert main(arguments) == 0
    assert "Cheapest that fits" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["fits"] and record["seconds"] == pytest.approx(sum(phase["seconds"] for phase in record["phases"]))
    assert record["throughput"]["requests_per_day"] > 0


def test_bad_input_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["estimate", "--num_forget_examples", "1", "--num_retain_examples", "1", "--tokens_per_example", "1"])
    assert "--num_parameters" in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_retain_examples"):
        replace(JOB, num_retain_examples=0)
    with pytest.raises(ValueError, match="reset_fraction"):
        replace(JOB, reset_fraction=1.5)
    with pytest.raises(ValueError, match="Raise it"):
        Setting(sharded=True)


def test_the_calibration_finds_a_rate_of_this_machine():
    size = ModelSize.of_model(LlamaForCausalLM(LLAMA))
    assert 1e8 < calibrate(size, tokens=64, seconds=0.1) < 1e14
    if not torch.accelerator.is_available():
        with pytest.raises(ValueError, match="no accelerator"):
            calibrate(size, tokens=64, on_accelerator=True)


def test_a_rate_twice_as_high_halves_the_time_of_products(capsys):
    seconds = []
    for rate in ("1e9", "2e9"):
        arguments = ["--num_forget_examples", "10", "--num_retain_examples", "100", "--tokens_per_example", "128"]
        assert main(["estimate", "--num_parameters", "1e9", *arguments, "--flops_per_second", rate, "--json"]) == 0
        seconds.append(json.loads(capsys.readouterr().out)["seconds"])
    assert seconds[1] == pytest.approx(seconds[0] / 2, rel=0.1)


def test_the_formulas_need_no_torch():
    code = (
        "import sys, hf_deepclean.planning.formulas; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_number_on_the_page_is_what_its_command_prints():
    found = examples(PAGE)
    assert len(found) >= 5
    for command, output in found:
        assert output == output_of(command), command


def test_every_run_on_the_page_is_within_a_quarter_of_the_estimate_and_most_were_held_out():
    table = PAGE.read_text().partition(BEGIN)[2].partition("<details>")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == list(RUNS)
    assert all(0.75 <= float(row[column]) <= 1.25 for row in rows[2:] for column in (6, 9))
    assert [row[2] for row in rows].count("held out") > [row[2] for row in rows].count("calibration")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT", "GPT-2", "Llama, adapter"])
def test_a_measured_run_is_within_a_quarter_of_the_estimate(name):
    pairs = compare(name, measure_run(name))["run"]
    for unit, (predicted, measured) in pairs.items():
        assert predicted == pytest.approx(measured, rel=0.25), unit
