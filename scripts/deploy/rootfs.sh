#!/usr/bin/env bash
# Fills OUT with the root file system of the container image: TIDEGATE, the libraries it is linked to, and empty folders.
#
#   scripts/deploy/rootfs.sh TIDEGATE OUT
set -euo pipefail

if (($# != 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$1 out=$2
rm -rf "$out"
install -D -m 755 "$tidegate" "$out/usr/bin/tidegate"
mkdir -p "$out"/{etc/tidegate,run/tidegate,var/lib/tidegate,proc,sys,tmp}
install -m 644 "$(dirname "${BASH_SOURCE[0]}")/tidegate.toml" "$out/etc/tidegate/"
linked=$(ldd "$tidegate")
if grep 'not found' <<<"$linked" >&2; then
    echo "rootfs: libraries of $tidegate are missing; install them, or build it here" >&2
    exit 1
fi
while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$out$library"
done < <(grep -o '/[^ ]*' <<<"$linked")
