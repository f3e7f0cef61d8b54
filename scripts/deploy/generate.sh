#!/usr/bin/env bash
# Writes what packages hold beside the program into OUT: man pages (man1/*.gz) and completions.
#
#   scripts/deploy/generate.sh TIDEGATE OUT
set -euo pipefail

if (($# != 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$1 out=$2
rm -rf "$out"
mkdir -p "$out/man1"
"$tidegate" man "$out/man1"
# Without names and dates in them, packages of the same sources are the same.
gzip -9n "$out"/man1/*.1
"$tidegate" completions bash >"$out/tidegate.bash"
"$tidegate" completions zsh >"$out/_tidegate"
"$tidegate" completions fish >"$out/tidegate.fish"
