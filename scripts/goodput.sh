#!/usr/bin/env bash
# Goodput of tidegate over impaired links, beside that of the kernel's TCP over the same links: brings up the lab with a
# middle, measures, and takes it down.
#
#   scripts/goodput.sh [--quick] [--runs N] [--duration 10s] [--control LIST] [--only TEXT] [--ipv6] [--seed N]
#                      [--json FILE] [--html FILE]
#
# The arguments are those of `tidegate-bench goodput` (make goodput builds first). Exit code 0 when everything was
# measured, however fast it was.
set -euo pipefail

# shellcheck source=scripts/bench-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/bench-in-lab.sh"
bench_in_lab goodput --middle "$@"
