#!/usr/bin/env bash
# Looks at the live dashboard in Debian's chromium: wide and narrow, light and dark, over a server that is busy, in a
# flood, or does not answer. Fails on errors in the console, on what leaves the page or cannot be seen, and on values that
# are missing or stand still.
#
#   scripts/test-dashboard.sh [DIRECTORY]
#
# Pictures are left in DIRECTORY (default: target/dashboard); those of docs/ are made with `docs`.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in chromium "${CHROMEDRIVER:-chromedriver}"; do
    if ! command -v "$program" >/dev/null; then
        echo "test-dashboard: $program is not installed; 'apt-get install chromium chromium-driver' installs both" >&2
        exit 1
    fi
done
directory=${1:-target/dashboard}
mkdir -p "$directory"
TIDEGATE_DASHBOARD_PICTURES=$(realpath "$directory") \
    cargo test --locked --package tidegate --bin tidegate -- --ignored --test-threads=1 admin::browser::
