#!/usr/bin/env bash
# Finds what stands twice in the benchmark's code, tests left out: jscpd from npm with the settings of .jscpd.json.
#
#   scripts/duplicates.sh [DIRECTORY ...]
#
# Without a DIRECTORY it looks at bench/. Exit code 1 if something stands twice.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v npx >/dev/null || {
    echo "duplicates: there is no npx; 'apt-get install npm' installs it" >&2
    exit 1
}
[ $# -gt 0 ] || set -- bench

# jscpd does not know where the tests of a file begin, so it gets copies that end there.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files --cached --others --exclude-standard -- "${@/%//*.rs}" | while read -r file; do
    [ -e "$file" ] || continue
    mkdir -p "$copy/$(dirname "$file")"
    awk '/^#\[cfg\(test\)\]$/ { held = $0; next }
         held != "" && /^mod tests \{$/ { exit }
         held != "" { print held; held = "" }
         { print }' "$file" >"$copy/$file"
done
cp .jscpd.json "$copy"
cd "$copy"
npx --yes --loglevel=error jscpd@4 --config .jscpd.json .
