#!/usr/bin/env bash
# Installs target/release/tidegate with its unit, man pages, completions and documents. Settings that are there are kept.
#
#   DESTDIR=DIR PREFIX=/usr/local scripts/deploy/install.sh [TIDEGATE]
#
# Settings (environment):
#   DESTDIR   folder that stands for / (default: /)
#   PREFIX    where programs go (default: /usr/local)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tidegate=${1:-target/release/tidegate}
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
[[ -x $tidegate ]] || {
    echo "install: $tidegate is missing: make build" >&2
    exit 1
}

generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
scripts/deploy/generate.sh "$tidegate" "$generated/out"

install -D -m 755 "$tidegate" "$root$prefix/bin/tidegate"
install -D -m 755 -t "$root$prefix/share/tidegate" scripts/deploy/reload.sh
install -D -m 644 -t "$root$prefix/share/man/man1" "$generated"/out/man1/*
install -D -m 644 "$generated/out/tidegate.bash" "$root$prefix/share/bash-completion/completions/tidegate"
install -D -m 644 -t "$root$prefix/share/zsh/site-functions" "$generated/out/_tidegate"
install -D -m 644 -t "$root$prefix/share/fish/vendor_completions.d" "$generated/out/tidegate.fish"
install -D -m 644 -t "$root$prefix/share/doc/tidegate" README.md LICENSE CHANGELOG.md docs/*.md scripts/tidegate.example.toml
sed -e "s|/usr/bin/|$prefix/bin/|" -e "s|/usr/share/|$prefix/share/|" scripts/deploy/tidegate.service |
    install -D -m 644 /dev/stdin "$root$prefix/lib/systemd/system/tidegate.service"
[[ -e $root/etc/tidegate/tidegate.toml ]] ||
    install -D -m 644 -t "$root/etc/tidegate" scripts/deploy/tidegate.toml
