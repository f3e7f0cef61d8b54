#!/usr/bin/env bash
# Checks that comments in Rust and lines of Markdown have at most 120 columns; rustfmt sees to the rest of Rust.
#
#   scripts/check-columns.sh [FILE...]       all files of the repository, or those given
#
# Excepted are rows of Markdown tables, which cannot be wrapped. Exit code 1 if a line is longer; each is named.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Columns are characters and not bytes.
export LC_ALL=C.UTF-8

if (($# > 0)); then
    files=("$@")
else
    mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.rs' '*.md')
fi
long=0
for file in "${files[@]}"; do
    # A file that is deleted and not yet committed is still listed.
    [[ -f $file ]] || continue
    case $file in
    *.rs) which='^[[:space:]]*//' exception='^$' ;;
    *) which='' exception='^[[:space:]]*[|]' ;;
    esac
    if grep -nE '^.{121,}' "$file" | grep -E "^[0-9]+:${which#^}" | grep -vE "^[0-9]+:${exception#^}" |
        sed "s|^\([0-9]*\):.*|$file:\1: more than 120 columns|"; then
        long=1
    fi
done
exit "$long"
