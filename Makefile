# The two commands that matter: `make train` and `make test`. Both set up .venv first; a second call costs nothing.
PYTHON ?= python3.11
SET ?= cpu
CONFIG ?= deploy/experiments/constructed.yaml
STAMP := .venv/.ready-$(SET)
# Made before a config that needs it is trained or compared.
BUILT := runs/environments/manifest.json
RECORDED := runs/experts/shop.parquet

.PHONY: train test unit check bfcl-parity tau2-parity webshop-parity compare bench bench-env bench-scienceworld fork bench-scale bench-train bench-trl lock clean
train: $(STAMP) $(if $(findstring constructed.yaml,$(CONFIG)),$(BUILT)) $(if $(findstring experts,$(CONFIG)),$(RECORDED))
	.venv/bin/tiltyard train $(CONFIG) $(ARGS)

$(RECORDED): | $(STAMP)
	.venv/bin/tiltyard experts shop --levels 2 3 --most 64 --degraded 0.8 --out $@

$(BUILT): | $(STAMP)
	.venv/bin/tiltyard construct --count 480 --shares 6 2 2 --out runs/environments

test: $(STAMP)
	deploy/test.sh

unit: $(STAMP)
	.venv/bin/python -m pytest -m "not e2e"

check: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

bench-scale: $(STAMP)
	.venv/bin/python -m deploy.bench_scale $(ARGS)

bench-train: $(STAMP)
	.venv/bin/python -m deploy.bench_train $(BASE) $(ARGS)

bench-trl: $(STAMP) .venv-trl/.ready
	.venv/bin/python -m deploy.bench_trl $(ARGS)

bench-env: $(STAMP)
	.venv/bin/python -m deploy.bench_env $(ARGS)

compare: $(STAMP) $(if $(findstring rewards,$(ARGS)),$(BUILT)) $(if $(filter %experiments/experts %experiments/solutions %experiments/bare,$(ARGS)),$(RECORDED))
	.venv/bin/python -m deploy.compare $(or $(ARGS),deploy/experiments/ablations)

tau2-parity: $(STAMP)
	.venv/bin/python -m deploy.tau2_gold $(ARGS)

webshop-parity: $(STAMP)
	.venv/bin/python -m deploy.webshop $(ARGS)

bench-scienceworld: $(STAMP)
	.venv/bin/python -m deploy.bench_scienceworld $(ARGS)

fork: $(STAMP) $(BUILT)
	.venv/bin/python -m deploy.fork $(or $(ARGS),shop bfcl tau2 constructed:runs/environments webshop scienceworld)

bfcl-parity: $(STAMP)
	.venv/bin/python -m deploy.bfcl_parity $(ARGS)

bench: $(STAMP)
	.venv/bin/python -m deploy.bench $(ARGS)

$(STAMP): deploy/locks/$(SET).txt pyproject.toml deploy/setup.sh
	deploy/setup.sh $(PYTHON) $(SET) $@

.venv-trl/.ready: deploy/locks/trl.txt deploy/setup.sh
	deploy/setup.sh $(PYTHON) trl $@

lock:
	deploy/locks/lock.sh

clean:
	rm -rf .venv .venv-trl build *.egg-info
