#!/usr/bin/env bash
# Resolves every set anew with uv, or those that are named; run it after a change of a .in file.
set -euo pipefail
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- cpu gpu trl
for set in "$@"; do
    excluded=(); [ ! -e "excluded-$set.txt" ] || excluded=(--override "excluded-$set.txt")
    uv pip compile "$set.in" "${excluded[@]}" --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
        --output-file "$set.txt" --quiet
    [ "$set" = trl ] || cat alone.txt >> "$set.txt"
done
