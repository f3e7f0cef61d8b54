#!/usr/bin/env bash
# What a SYN flood does to tidegate, beside what it does to the kernel's TCP and to bare XDP programs: brings up the lab,
# measures, and takes it down.
#
#   scripts/resilience.sh [--quick] [--family 4|6|both] [--ipv4-only] [--json FILE] [--html FILE] [--open-rate MBIT]
#                         [--seed N]
#
# The arguments are those of `tidegate-bench resilience` (make resilience builds first). --quick ends within 55 s; the
# whole test takes about ten minutes. The flood does not leave the lab. Exit code 0 when everything was measured,
# however good it was.
set -euo pipefail

# shellcheck source=scripts/bench-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/bench-in-lab.sh"
bench_in_lab resilience '' "$@"
