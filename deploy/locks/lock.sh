#!/usr/bin/env bash
# Resolves both sets anew with uv; run it after a change of a .in file.
set -euo pipefail
cd "$(dirname "$0")"
for set in cpu gpu; do
    uv pip compile "$set.in" --override "excluded-$set.txt" --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
        --output-file "$set.txt" --quiet
done
