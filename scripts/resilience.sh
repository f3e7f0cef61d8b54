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

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$root/scripts/lab.sh
bench=$root/target/release/tidegate-bench

work=
bench_pid=

die() {
    echo "resilience: $*" >&2
    exit 1
}

clean_up() {
    if [[ -n $bench_pid ]]; then
        # It ends the server; what is left ends with the lab.
        kill -TERM "$bench_pid" 2>/dev/null || true
        wait "$bench_pid" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        "$lab" down || echo "resilience: the lab could not be taken down; see \`scripts/lab.sh status\`" >&2
        rm -rf -- "$work"
    fi
}

((EUID == 0)) || die "network namespaces and XDP take root; run this as root"
for program in "$bench" "$root/target/release/tidegate"; do
    [[ -x $program ]] || die "$program is not built; run \`make build\`"
done

# The tests of the lab hold the same lock. What runs in the lab must not: it would outlive this script if that is killed.
exec 9>>/tmp/tidegate-lab.lock
flock --nonblock 9 || {
    echo "resilience: waiting for the tests that use the lab" >&2
    flock 9
}

trap clean_up EXIT
trap 'exit 1' INT TERM
work=$(mktemp -d)
"$lab" up 9>&-
# In the background, so that a signal is not put off until it ends.
TMPDIR=$work "$bench" resilience "$@" 9>&- &
bench_pid=$!
status=0
wait "$bench_pid" || status=$?
bench_pid=
exit "$status"
