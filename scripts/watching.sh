#!/usr/bin/env bash
# What watching a server costs it: requests a second in a lab of its own, of one server by turns with
#
#   off       nobody watching
#   on        metrics scraped and the dashboard's figures asked for each second, and 1 % of requests in the access log
#   capture   the frames of one of 16 peers captured to a file
#   again     nobody watching, which says how far apart equal runs are
#
#   scripts/watching.sh [ROUNDS [SECONDS]]                                          (default: 11 3)
#
# Prints the medians, and what `tidegate-bench report diff` says of each beside off. Exit code 1 if a request failed, or if
# the watchers got nothing. Needs root, curl, and target/release/tidegate and tidegate-bench (`make build`); TIDEGATE_PROGRAMS
# is where they are, if not there.
set -euo pipefail

rounds=${1:-11}
seconds=${2:-3}
if (($# > 2)) || ! [[ $rounds$seconds =~ ^[0-9]+$ ]]; then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
# shellcheck source=scripts/servers-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/servers-in-lab.sh"
admin=http://127.0.0.1:9100
measured=0
begin_lab watching

# Has the server log these requests; without an argument none.
log_requests() {
    cp "$work/plain.toml" "$work/tidegate.toml"
    (($# == 0)) || printf '[access_log]\npath = "%s"\nsample = %s\n' "$work/access.txt" "$1" >>"$work/tidegate.toml"
    "$programs/tidegate" ctl --control "$work/control" reload >"$work/ctl.log" 2>&1 9>&- ||
        die "the server does not take the other access log"
}

# Asks for PATH each second.
ask() {
    exec "$lab" server bash -c 'while sleep 1; do curl -sf "$1" >"$2"; done' ask "$admin$1" "$work/$2" 9>&-
}

# Ends all that was started but the server.
stop_watching() {
    kill "${started[@]:1}"
    wait "${started[@]:1}" || true
    started=("${started[0]}")
}

# Measures CASE in ROUND: four connections of each peer, from ports that are not in TIME-WAIT.
measure() {
    local first=$((1024 + 4 * measured))
    measured=$((measured + 1))
    mkdir -p "$work/$1"
    "$lab" client "$programs/tidegate-bench" rps --url http://198.18.0.1/ --client bypass --iface tgc0 --sources 198.19.0.0/27 \
        --ports "$first-$((first + 3))" --connections 64 --duration "${seconds}s" --json "$work/$1/$2.json" >"$work/rps.log" 2>&1 9>&- ||
        die "requests of round $2 failed ($1)"
}

cat >"$work/plain.toml" <<END
iface = "tgs0"
listen = ["http=198.18.0.1:80"]
admin = "${admin#http://}"
[control]
path = "$work/control"
[http]
keepalive_requests = 1000000000
END
cp "$work/plain.toml" "$work/tidegate.toml"
"$lab" up 9>&-
# The client brings its own program.
"$lab" client ip link set dev tgc0 xdp off
"$lab" server ip route add 198.19.0.0/16 via 198.18.0.2
start_server server --config "$work/tidegate.toml"

for round in $(seq -w "$rounds"); do
    measure off "$round"

    log_requests 0.01
    ask /metrics metrics.txt &
    started+=($!)
    ask /api/v1/rates rates.txt &
    started+=($!)
    measure on "$round"
    stop_watching
    log_requests
    grep -q '^# EOF' "$work/metrics.txt" && [[ -s $work/rates.txt && -s $work/access.txt ]] || die "nobody could watch"

    "$programs/tidegate" ctl --control "$work/control" capture --filter 'host 198.19.0.1' --write "$work/peer.pcapng" \
        >"$work/capture.log" 2>&1 9>&- &
    started+=($!)
    measure capture "$round"
    stop_watching
    [[ -s $work/peer.pcapng ]] || die "nothing was captured"

    measure again "$round"
done
for case in on capture again; do
    echo "$case, beside off:"
    # A percentile may well be twice as long, which is for the reader to judge.
    "$programs/tidegate-bench" report diff --paired --threshold 100% "$work/off" "$work/$case" || (($? == 1)) ||
        die "the figures cannot be compared"
done
