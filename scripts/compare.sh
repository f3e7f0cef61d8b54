#!/usr/bin/env bash
# tidegate, nginx and the same application on the kernel's TCP, in turn, under the same client: brings up the lab,
# measures, and takes it down.
#
#   scripts/compare.sh [--quick] [--json FILE] [--html FILE] [--client bypass|kernel|both] [--runs N]
#                      [--targets LIST] [--workloads LIST] [--ipv6] [--wait STRATEGY]
#
# The arguments are those of `tidegate-bench compare` (make compare builds first). nginx is Debian's, `apt-get install
# nginx-light`; --targets tidegate,serve-kernel does without it. --quick ends within 55 s; the whole comparison takes
# about five minutes. Exit code 0 when everything was measured, however fast it was.
set -euo pipefail

# shellcheck source=scripts/bench-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/bench-in-lab.sh"
bench_in_lab compare '' "$@"
