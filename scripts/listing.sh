#!/usr/bin/env bash
# What listing many connections costs the others: a server in a lab of its own holds connections, and the latency of
# requests at a fixed rate is measured while nobody asks for the connections, and while they are listed and counted all
# the time. Prints both latencies, and what the listings said and took; exit code 1 if a listing missed a connection, or
# a connection or request failed.
#
#   scripts/listing.sh [CONNECTIONS [REQUESTS_A_SECOND [SECONDS]]]                  (default: 100000 1000 10)
#
# A million connections take about 0.4 GB in the server and as much in the client. Needs root, and target/release/tidegate
# and tidegate-bench (`make build`); TIDEGATE_PROGRAMS is where they are, if not there.
set -euo pipefail

connections=${1:-100000}
rate=${2:-1000}
seconds=${3:-10}
if (($# > 3)) || ! [[ $connections$rate$seconds =~ ^[0-9]+$ ]]; then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
# shellcheck source=scripts/servers-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/servers-in-lab.sh"
# The client that holds connections takes all that comes from its target, so the other one has a port of its own.
held_url=http://198.18.0.1/
url=http://198.18.0.1:81/
begin_lab listing

# Waits for LIMIT seconds until a command succeeds.
wait_for() {
    local limit=$1
    shift
    for _ in $(seq $((limit * 5))); do
        ! "$@" || return 0
        sleep 0.2
    done
    return 1
}

ctl() {
    "$programs/tidegate" ctl --control "$work/control" "$@" 2>>"$work/ctl.log"
}

# The number of open connections of peers with prefix 198.19.0.0/16, which are those that are held.
held() {
    ctl conns --peer 198.19.0.0/16 --state established --limit 0 --json | grep -o '"selected":[0-9]*' | cut -d : -f 2
}

are_held() {
    [[ $(held) == "$connections" ]]
}

# The latency of requests for so many seconds, to file $1.json.
latency() {
    "$lab" client "$programs/tidegate-bench" latency --url "$url" --rate "$rate" --duration "${seconds}s" \
        --json "$work/$1.json" >"$work/$1.log" 2>&1 9>&- || die "requests failed"
}

# Lists the largest and counts all, again and again while there is a file of this name.
list() {
    local listings=0 began took selected
    while [[ -e $1 ]]; do
        began=${EPOCHREALTIME/./}
        selected=$(ctl conns --peer 198.19.0.0/16 --sort age --limit 1000 --json | grep -o '"selected":[0-9]*' | cut -d : -f 2)
        took=$((${EPOCHREALTIME/./} - began))
        listings=$((listings + 1))
        echo "listing $listings: $selected connections in $((took / 1000)) ms"
        ((selected >= connections)) || echo "missed: $((connections - selected)) connections"
    done
}

cat >"$work/tidegate.toml" <<END
iface = "tgs0"
listen = ["http=198.18.0.1:80", "http=198.18.0.1:81"]
[control]
path = "$work/control"
[tcp]
max_connections = $((connections + connections / 10 + 10000))
# With cookies a connection whose last acknowledgment is lost is none until the client speaks, which it does at the end.
[syn_cookies]
mode = "never"
[http]
header_timeout = "1h"
keepalive_timeout = "1h"
END
"$lab" up 9>&-
# The client brings its own program.
"$lab" client ip link set dev tgc0 xdp off
"$lab" server ip route add 198.19.0.0/16 via 198.18.0.2
start_server server --config "$work/tidegate.toml"
ip netns exec "$TIDEGATE_LAB-client" "$programs/tidegate-bench" hold --url "$held_url" --client bypass --iface tgc0 --sources 198.19.0.0/16 \
    --wait adaptive --connections "$connections" --duration 600s >"$work/hold.log" 2>&1 9>&- &
started+=($!)
wait_for 300 are_held || die "only $(held) of $connections connections are open"
latency before
touch "$work/lists"
list "$work/lists" >"$work/listings" 9>&- &
lister=$!
started+=("$lister")
# On a machine of two processors this loop itself would take them from the server, which is no cost of listing.
chrt --idle --pid 0 "$lister"
latency during
rm "$work/lists"
wait "$lister"

sed 's/^/before: /' "$work/before.log"
sed 's/^/during: /' "$work/during.log"
tail -n 3 "$work/listings"
! grep missed "$work/listings" || die "connections are missing"
are_held || die "connections were lost: $(held) of $connections are open"
