#!/usr/bin/env bash
# Goodput of tidegate over impaired links, beside that of the kernel's TCP over the same links: brings up the lab with a
# middle, measures, and takes it down.
#
#   scripts/goodput.sh [--quick] [--runs N] [--duration 10s] [--ipv6] [--seed N] [--json FILE]
#
# The arguments are those of `tidegate-bench goodput` (make goodput builds first). Exit code 0 when everything was
# measured, however fast it was.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$root/scripts/lab.sh
bench=$root/target/release/tidegate-bench

work=
bench_pid=

die() {
    echo "goodput: $*" >&2
    exit 1
}

clean_up() {
    if [[ -n $bench_pid ]]; then
        # It ends the server and the link; what is left ends with the lab.
        kill -TERM "$bench_pid" 2>/dev/null || true
        wait "$bench_pid" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        "$lab" down || echo "goodput: the lab could not be taken down; see \`scripts/lab.sh status\`" >&2
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
    echo "goodput: waiting for the tests that use the lab" >&2
    flock 9
}

trap clean_up EXIT
trap 'exit 1' INT TERM
work=$(mktemp -d)
"$lab" up --middle 9>&-
# In the background, so that a signal is not put off until it ends.
TMPDIR=$work "$bench" goodput "$@" 9>&- &
bench_pid=$!
status=0
wait "$bench_pid" || status=$?
bench_pid=
exit "$status"
