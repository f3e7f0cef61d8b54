#!/usr/bin/env bash
# The demonstration: a Linux client fetches files from tidegate over a veth pair, by IPv4 and IPv6, and the counters
# show which way the bytes took.
#
#   scripts/demo.sh        (make demo builds first; TIDEGATE_PROGRAMS is where the programs are, if not in target/release)
#
# Exit code 0 only if every byte was right and none of it went through the kernel's TCP on the server's side.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$root/scripts/lab.sh
programs=${TIDEGATE_PROGRAMS:-$root/target/release}
tidegate=$programs/tidegate
bench=$programs/tidegate-bench
queues=2
urls=(http://198.18.0.1 'http://[2001:2::1]')

work=
server_pid=

die() {
    echo "demo: FAILED: $*" >&2
    if [[ -n $work && -s $work/server.log ]]; then
        echo "demo: the last lines of the server:" >&2
        tail -n 40 "$work/server.log" >&2
    fi
    exit 1
}

step() {
    printf '\n== %s\n' "$*"
}

clean_up() {
    if [[ -n $server_pid ]]; then
        kill -KILL "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        "$lab" down || echo "demo: the lab could not be taken down; see \`scripts/lab.sh status\`" >&2
        rm -rf -- "$work"
    fi
}

# The counter $1 of the server's kernel TCP, both families together.
kernel_tcp() {
    "$lab" server cat /proc/net/snmp | awk -v wanted="$1" '
        $1 == "Tcp:" && !column { for (i = 2; i <= NF; i++) if ($i == wanted) column = i; next }
        $1 == "Tcp:" { print $column; exit }'
}

# The server's counter $1 on queue $2, or summed over all queues, from what it printed when it stopped.
counter() {
    awk -v name="$1" -v queue="${2:-}" '
        index($1, name "{queue=\"") == 1 && (queue == "" || $1 == name "{queue=\"" queue "\"}") { sum += $2; found = 1 }
        END { if (!found) exit 1; printf "%.0f\n", sum }' "$work/counters" ||
        die "the server printed no counter $1"
}

wait_until_ready() {
    local attempt
    for ((attempt = 0; attempt < 200; attempt++)); do
        grep -qx 'tidegate: ready' "$work/server.log" && return
        kill -0 "$server_pid" 2>/dev/null || die "the server ended before it served"
        sleep 0.1
    done
    die "the server was not ready within 20 seconds"
}

stop_server() {
    local attempt status=0
    # Read again from here: counters printed before are not the last ones.
    local printed
    printed=$(wc -l <"$work/server.log")
    kill -TERM "$server_pid"
    for ((attempt = 0; attempt < 200; attempt++)); do
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -0 "$server_pid" 2>/dev/null && die "the server did not end within 20 seconds of SIGTERM"
    wait "$server_pid" || status=$?
    server_pid=
    ((status == 0)) || die "the server ended with exit code $status"
    tail -n "+$((printed + 1))" "$work/server.log" >"$work/counters"
}

make_files() {
    local size
    mkdir "$work/root"
    echo '<!doctype html><title>tidegate</title><p>Every byte of this came through AF_XDP.' >"$work/root/index.html"
    for size in 1 1000 100000 1000000 64000000; do
        head -c "$size" /dev/urandom >"$work/root/$size.bin"
    done
}

# Fetches every file from $1 and compares it with the original.
fetch_all() {
    local file sent received
    for file in "$work"/root/*; do
        sent=$(sha256sum <"$file")
        received=$("$lab" client curl --silent --show-error --fail --globoff --max-time 60 "$1/${file##*/}" |
            sha256sum) ||
            die "curl could not fetch $1/${file##*/}"
        [[ $sent == "$received" ]] || die "$1/${file##*/} arrived with another SHA-256 than it was sent with"
        printf '%-40s %9s bytes  sha256 %.16s... equal\n' "$1/${file##*/}" "$(stat -c %s "$file")" "$received"
    done
}

((EUID == 0)) || die "network namespaces and XDP take root; run this as root"
for program in "$tidegate" "$bench"; do
    [[ -x $program ]] || die "$program is not built; \`make demo\` builds it"
done

# shellcheck source=scripts/lab-lock.sh
source "$root/scripts/lab-lock.sh"
lock_lab demo

trap clean_up EXIT
work=$(mktemp -d)

step "A server and a client in namespaces of their own, joined by a veth pair with $queues queues"
"$lab" up --queues "$queues" 9>&-
"$lab" status

step "tidegate serves HTTP on tgs0"
make_files
"$lab" server "$tidegate" serve --iface tgs0 --queues "$queues" --root "$work/root" \
    --listen 'http=198.18.0.1:80' --listen 'http=[2001:2::1]:80' </dev/null >"$work/server.log" 2>&1 9>&- &
server_pid=$!
wait_until_ready
cat "$work/server.log"
segments_in=$(kernel_tcp InSegs)
segments_out=$(kernel_tcp OutSegs)

step "curl fetches files over IPv4 and IPv6"
for url in "${urls[@]}"; do
    fetch_all "$url"
done

step "100 connections at once, 2 seconds with keep-alive and 2 seconds without, over IPv4 and IPv6"
for url in "${urls[@]}"; do
    "$lab" client "$bench" load --url "$url/1000.bin" --connections 100 --duration 2s ||
        die "not every response from $url was right"
    "$lab" client "$bench" load --url "$url/1000.bin" --connections 100 --duration 2s --no-keepalive ||
        die "not every response from $url was right, with a new connection for each"
done

segments_in=$(($(kernel_tcp InSegs) - segments_in))
segments_out=$(($(kernel_tcp OutSegs) - segments_out))

step "SIGTERM: the server drains, detaches and prints its counters"
stop_server

step "The way the bytes took"
# The sum of the counters given.
sum() {
    local name value total=0
    for name in "$@"; do
        value=$(counter "$name") || exit 1
        total=$((total + value))
    done
    echo "$total"
}
redirects=$(sum xdp_redirect xdp_redirect_cookie xdp_redirect_no_flow xdp_redirect_syn xdp_redirect_too_big)
refused=$(sum afxdp_kernel_rx_dropped afxdp_kernel_rx_ring_full)
received=$(counter afxdp_rx_frames)
sent=$(counter afxdp_tx_frames)
printf '%-52s %12s' 'counter' 'sum'
for ((queue = 0; queue < queues; queue++)); do
    printf ' %12s' "queue $queue"
done
printf '\n'
show() {
    local queue value
    value=$(counter "$2")
    printf '%-52s %12s' "$1" "$value"
    for ((queue = 0; queue < queues; queue++)); do
        value=$(counter "$2" "$queue")
        printf ' %12s' "$value"
    done
    printf '\n'
}
show 'XDP: segments of connections redirected' xdp_redirect
show 'XDP: SYNs redirected' xdp_redirect_syn
show 'XDP: SYNs answered with a cookie' xdp_tx_syn_cookie
show 'AF_XDP: frames received' afxdp_rx_frames
show 'AF_XDP: frames sent' afxdp_tx_frames
printf '%-52s %12s\n' "kernel TCP of the server's namespace: segments in" "$segments_in" \
    "kernel TCP of the server's namespace: segments out" "$segments_out"

((redirects > 0)) || die "the XDP program redirected nothing"
((received > 0 && sent > 0)) || die "no frame went through AF_XDP"
((redirects == received + refused)) ||
    die "$redirects frames were redirected, but $received received and $refused refused by the sockets"
((segments_in == 0 && segments_out == 0)) || die "the kernel's TCP of the server's namespace took part"

step "Taking the lab down"
clean_up
trap - EXIT
echo "demo: passed"
