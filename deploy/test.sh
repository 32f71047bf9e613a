#!/usr/bin/env bash
# All tests, quickest first. Stops at the first that fails.
set -euo pipefail
.venv/bin/python -m pytest -m "not e2e"
.venv/bin/python -m pytest -m e2e -x --durations=10
