#!/usr/bin/env bash
# Makes an environment from a full lock: every version and hash is given, so nothing is resolved.
# usage: setup.sh PYTHON SET STAMP     the environment is the stamp's folder
set -euo pipefail
python=$1 set=$2 stamp=$3
venv=$(dirname "$stamp")

fail() { echo "set-up: $1" >&2; exit 1; }
command -v "$python" >/dev/null || fail "no $python; install Python 3.11, or name one: make train PYTHON=/path/to/python3.11"
[ "$("$python" -c 'import sys; print(sys.version_info[:2] == (3, 11))')" = True ] || fail "$python is not Python 3.11, which the lock is for"
command -v cc >/dev/null || command -v gcc >/dev/null || fail "no C compiler (cc); install one, such as the package gcc"
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mb" -ge 8000 ] || fail "$free_mb MB are free on this disk; the set-up needs 8000"
memory_mb=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
[ "$memory_mb" -ge 11500 ] || fail "this machine has $memory_mb MB of memory; training needs 12 GB"

echo "set-up: making $venv from deploy/locks/$set.txt"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
    -r "deploy/locks/$set.txt" 2> >(grep -v "is ignored: it is neither" >&2) \
    || fail "pip could not install the lock; where it finds no torch+cpu, give PyTorch's CPU index by PIP_EXTRA_INDEX_URL"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . \
    2> >(grep -v "is ignored: it is neither" >&2)
# Every process of a run imports torch and vLLM: compiled once here, by all cores, instead of at each start.
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib/python3.11/site-packages" >/dev/null 2>&1 || true
touch "$stamp"
