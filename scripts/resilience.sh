#!/usr/bin/env bash
# What attacks do to tidegate, beside what they do to nginx and the kernel's TCP and to bare XDP programs: brings up the
# lab, measures, and takes it down.
#
#   scripts/resilience.sh [--quick] [--attacks LIST] [--family 4|6|both] [--ipv4-only] [--json FILE] [--html FILE]
#                         [--open-rate MBIT] [--seed N]
#
# The arguments are those of `tidegate-bench resilience` (make resilience builds first). --quick ends within 3 minutes,
# the whole test within 90. The attacks do not leave the lab. Without nginx, which is then left out, it says so. Exit code 0 when everything was measured,
# however good it was.
set -euo pipefail

# shellcheck source=scripts/bench-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/bench-in-lab.sh"
bench_in_lab resilience '' "$@"
