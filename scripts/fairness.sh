#!/usr/bin/env bash
# Shares of one queue: flows of tidegate beside flows of the kernel's TCP, and these among themselves. Brings up the lab
# with a middle, measures, and takes it down.
#
#   scripts/fairness.sh [--quick] [--runs N] [--duration 60s] [--control LIST] [--flows LIST] [--only TEXT]
#                       [--rate 100mbit] [--delay 10ms] [--queue BDP] [--ipv6] [--json FILE] [--html FILE]
#
# The arguments are those of `tidegate-bench fairness` (make fairness builds first). Exit code 0 when everything was
# measured, however fair it was.
set -euo pipefail

# shellcheck source=scripts/bench-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/bench-in-lab.sh"
bench_in_lab fairness --middle "$@"
