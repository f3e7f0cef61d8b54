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
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TIDEGATE_LAB=tg-take-over
lab=$root/scripts/lab.sh
binaries=${TIDEGATE_PROGRAMS:-$root/target/release}
servers=()

# shellcheck source=scripts/lab-lock.sh
source "$root/scripts/lab-lock.sh"
lock_lab take-over
work=$(mktemp -d)

clean_up() {
    for pid in "${servers[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    "$lab" down 9>&-
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# Starts one more server and waits until it serves.
start_server() {
    local log=$work/server-${#servers[@]}.log
    ip netns exec "$TIDEGATE_LAB-server" "$binaries/tidegate" serve --iface tgs0 --listen http=198.18.0.1:80 \
        --take-over "$work/take-over" >"$log" 2>&1 9>&- &
    servers+=($!)
    for _ in $(seq 300); do
        if grep -q '^tidegate: ready' "$log"; then
            return
        fi
        sleep 0.1
    done
    echo "a server does not serve:" >&2
    cat "$log" >&2
    exit 1
}

"$lab" up --queues 2 9>&-
start_server
seconds=$((restarts * between + between))
# Requests on connections that stay open for the whole time, and connections of one request each.
"$lab" client "$binaries/tidegate-bench" rps --url http://198.18.0.1/ --connections 16 --warm-up 0s \
    --duration "${seconds}s" --json "$work/held.json" >"$work/held.log" 2>&1 9>&- &
held=$!
"$lab" client "$binaries/tidegate-bench" cps --url http://198.18.0.1/ --connections "$at_a_time" --warm-up 0s \
    --duration "${seconds}s" --json "$work/new.json" >"$work/new.log" 2>&1 9>&- &
new=$!
for _ in $(seq "$restarts"); do
    sleep "$between"
    start_server
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
    grep -v -e '^queue ' -e '^listening ' -e '^tidegate: ' -e '^[a-z_]*{' -e '^[a-z_]* [0-9]' "$log" || true
done
exit "$status"
