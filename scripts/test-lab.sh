#!/usr/bin/env bash
# Runs the server's tests end to end, two at a time: they wait more than they work. Each half has a lab of its own.
#
#   scripts/test-lab.sh CARGO-TEST-COMMAND...
#
# The command is given the arguments of the test program after `--`.
set -euo pipefail

# Half of the tests by the time they take; those of every other module are the other half.
first=(bench_clients:: device:: flood_memory:: impaired:: lost_state:: modes:: moved_flows:: nic:: scale_out:: slow_readers::
    syn_cookies::)

"$@" --no-run
skipped=()
for module in "${first[@]}"; do
    skipped+=(--skip "$module")
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
TIDEGATE_TEST_LAB=tg-test2 "$@" -- --test-threads=1 "${first[@]}" >"$log" 2>&1 &
second=$!
code=0
TIDEGATE_TEST_LAB=tg-test "$@" -- --test-threads=1 "${skipped[@]}" || code=$?
wait "$second" || code=$?
cat "$log"
exit "$code"
