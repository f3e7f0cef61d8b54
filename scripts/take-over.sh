#!/usr/bin/env bash
# Restarts under load: a server in a lab of its own is taken over from again and again while clients connect all the
# time, and connections made before are used after each. Prints what failed; exit code 1 if anything did.
#
#   scripts/take-over.sh [RESTARTS [SECONDS_BETWEEN [CONNECTIONS_AT_A_TIME]]]       (default: 3 5 64)
#
# Needs root, and target/release/tidegate and tidegate-bench (`make build`); TIDEGATE_PROGRAMS is where they are, if not
# there.
set -euo pipefail

restarts=${1:-3}
between=${2:-5}
at_a_time=${3:-64}
# shellcheck source=scripts/servers-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/servers-in-lab.sh"
begin_lab take-over

# Starts one more server, which takes over from the one before.
start_another() {
    start_server "server-${#started[@]}" --iface tgs0 --listen http=198.18.0.1:80 --take-over "$work/take-over"
}

"$lab" up --queues 2 9>&-
start_another
seconds=$((restarts * between + between))
# Requests on connections that stay open for the whole time, and connections of one request each.
"$lab" client "$programs/tidegate-bench" rps --url http://198.18.0.1/ --connections 16 --warm-up 0s \
    --duration "${seconds}s" --json "$work/held.json" >"$work/held.log" 2>&1 9>&- &
held=$!
started+=("$held")
"$lab" client "$programs/tidegate-bench" cps --url http://198.18.0.1/ --connections "$at_a_time" --warm-up 0s \
    --duration "${seconds}s" --json "$work/new.json" >"$work/new.log" 2>&1 9>&- &
new=$!
started+=("$new")
for _ in $(seq "$restarts"); do
    sleep "$between"
    start_another
done
status=0
wait "$held" || status=1
wait "$new" || status=1
echo "$restarts restarts in $seconds s; connections that were held:"
cat "$work/held.log"
echo "new connections:"
cat "$work/new.log"
for log in "$work"/server-*.log; do
    # Warnings only: there are none.
    grep -v -e '^queue ' -e '^listening ' -e '^tidegate: ' -e '^[a-z0-9_]*{' -e '^[a-z0-9_]* [0-9]' "$log" || true
done
exit "$status"
