#!/usr/bin/env bash
# Runs the server's tests end to end, two at a time: they wait more than they work. Each half has a lab of its own.
#
#   scripts/test-lab.sh CARGO-TEST-COMMAND...
#
# The command is given the arguments of the test program after `--`.
set -euo pipefail

# Half of the tests by the time they take; those of every other module are the other half.
first=(bench_agents:: bench_clients:: device:: faults:: flood_memory:: impaired:: lost_state:: modes:: moved_flows::
    next_hop:: nic:: scale_out:: slow_readers:: syn_cookies::)

"$@" --no-run
skipped=()
for module in "${first[@]}"; do
    skipped+=(--skip "$module")
done
log=$(mktemp)
second=
# The second half is a process group of its own, which Ctrl-C does not reach.
trap '[[ -z $second ]] || kill -- "-$second" 2>/dev/null || true; rm -f "$log"' EXIT
set -m
TIDEGATE_TEST_LAB=tg-test2 "$@" -- --test-threads=1 "${first[@]}" >"$log" 2>&1 &
second=$!
set +m
code=0
TIDEGATE_TEST_LAB=tg-test "$@" -- --test-threads=1 "${skipped[@]}" || code=$?
wait "$second" || code=$?
second=
cat "$log"
exit "$code"
