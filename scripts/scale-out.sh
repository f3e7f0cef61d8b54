#!/usr/bin/env bash
# The scale-out lab: a client, a router and several servers with the same service address, in network namespaces of
# their own. The router spreads flows over the servers by a resilient next-hop group, or leaves them to a balancer.
# docs/scale-out.md walks through it.
#
#   scripts/scale-out.sh up [--balancer]
#                                make it, with three servers that are all in the group; with --balancer the router has no
#                                route to the service address, and drops what no balancer on it takes
#   scripts/scale-out.sh down    end what runs in it and remove it; does nothing if it is not up
#   scripts/scale-out.sh client CMD...
#   scripts/scale-out.sh router CMD...
#   scripts/scale-out.sh server N CMD...
#                                run a command in a namespace, N from 1 to 3
#   scripts/scale-out.sh add N   put server N into the group: buckets move to it as they become idle
#   scripts/scale-out.sh drain N give it as little as possible: its buckets move away as they become idle
#   scripts/scale-out.sh remove N
#                                take it out of the group: all of its buckets move away at once
#   scripts/scale-out.sh buckets how many buckets each server has
#   scripts/scale-out.sh demo [TIDEGATE]
#                                start three servers (default: target/release/tidegate), put load on, kill one, add it
#                                again, drain another, and show what the clients saw; the lab is taken down at the end
#
#   namespace            device   addresses
#   tg-scale-client      tgc0     198.18.0.2/24   2001:2::2/64
#   tg-scale-middle      tgm0     198.18.0.1/24   2001:2::1/64      the router; to the client
#                        tgrN     198.18.N.1/24   2001:2:0:N::1/64  to server N
#   tg-scaleN-server     tgs0     198.18.N.2/24   2001:2:0:N::2/64  and the service addresses,
#                                 198.19.0.1/32   2001:2:0:100::1/128
#
# TIDEGATE_LAB=NAME makes a second lab, with NAME in the place of tg-scale. TIDEGATE_XDP_PASS is the object of the XDP
# program on the router's devices, if not target/ebpf/xdp-pass.o. No interface outside of these namespaces is touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${TIDEGATE_LAB:-tg-scale}
client=$name-client
router=$name-middle
servers=(1 2 3)
service_v4=198.19.0.1
service_v6=2001:2:0:100::1
# A bucket moves when no packet came for the idle time. That happens only where there are more buckets than new flows
# in that time.
buckets=32768
idle_seconds=2
max_weight=256
# The next-hop groups of IPv4 and IPv6; the next hop of server N is the group's number and N.
groups=(100 200)

die() {
    echo "scale-out: $*" >&2
    exit 1
}

usage() {
    # The comment at the top of this file.
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

namespaces() {
    printf '%s\n' "$client" "$router" "${servers[@]/%/-server}" | sed "s/^\([0-9]\)/$name\1/"
}

exists() {
    [[ -e /run/netns/$1 ]]
}

in_namespace() {
    ip netns exec "$@"
}

xdp_pass_object() {
    local object=${TIDEGATE_XDP_PASS:-$root/target/ebpf/xdp-pass.o}
    if [[ ! -f $object ]]; then
        [[ -z ${TIDEGATE_XDP_PASS:-} ]] || die "TIDEGATE_XDP_PASS names $object, which is not there"
        "$root/scripts/build-ebpf.sh" "$root/target/ebpf/tidegate.o" >&2
    fi
    echo "$object"
}

# Gives device $2 of namespace $1 the addresses that follow, and sets it up. Checksums and segments are made before a
# frame leaves, and frames are forwarded as they came.
configure_device() {
    local namespace=$1 device=$2 address
    shift 2
    in_namespace "$namespace" ethtool -K "$device" tx off tso off gso off gro off >/dev/null
    for address in "$@"; do
        if [[ $address == *:* ]]; then
            ip -n "$namespace" address add "$address" dev "$device" nodad
        else
            ip -n "$namespace" address add "$address" dev "$device"
        fi
    done
    ip -n "$namespace" link set dev lo up
    ip -n "$namespace" link set dev "$device" up
}

up() {
    local balancer=$1 object namespace n
    down
    object=$(xdp_pass_object)
    # Whatever happens from here on, a lab is there whole or not at all.
    trap 'down' EXIT
    while read -r namespace; do
        ip netns add "$namespace"
        in_namespace "$namespace" sysctl -q -w \
            net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.autoconf=0 \
            net.ipv6.conf.default.router_solicitations=0 \
            net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1
    done < <(namespaces)
    # Flows are told by addresses and ports.
    in_namespace "$router" sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
    ip link add tgc0 netns "$client" type veth peer name tgm0 netns "$router"
    configure_device "$router" tgm0 198.18.0.1/24 2001:2::1/64
    configure_device "$client" tgc0 198.18.0.2/24 2001:2::2/64
    ip -n "$client" route add default via 198.18.0.1
    ip -n "$client" -6 route add default via 2001:2::1
    for n in "${servers[@]}"; do
        ip link add tgs0 netns "$name$n-server" type veth peer name "tgr$n" netns "$router"
        # What XDP sends towards an end of a veth pair is lost unless that end has a native program too.
        in_namespace "$router" ip link set dev "tgr$n" xdpdrv object "$object" section xdp
        configure_device "$router" "tgr$n" "198.18.$n.1/24" "2001:2:0:$n::1/64"
        configure_device "$name$n-server" tgs0 "198.18.$n.2/24" "2001:2:0:$n::2/64" \
            "$service_v4/32" "$service_v6/128"
        ip -n "$name$n-server" route add default via "198.18.$n.1"
        ip -n "$name$n-server" -6 route add default via "2001:2:0:$n::1"
        ip -n "$router" nexthop add id "${groups[0]}$n" via "198.18.$n.2" dev "tgr$n"
        ip -n "$router" nexthop add id "${groups[1]}$n" via "2001:2:0:$n::2" dev "tgr$n"
    done
    if [[ $balancer == yes ]]; then
        ip -n "$router" route add blackhole "$service_v4"
        ip -n "$router" -6 route add blackhole "$service_v6"
    else
        make_groups
    fi
    wait_for_carrier
    trap - EXIT
}

make_groups() {
    local group members
    for group in "${groups[@]}"; do
        members=$(printf "/$group%s" "${servers[@]}")
        ip -n "$router" nexthop add id "$group" group "${members:1}" \
            type resilient buckets "$buckets" idle_timer "$idle_seconds" unbalanced_timer 0
    done
    ip -n "$router" route add "$service_v4/32" nhid "${groups[0]}"
    ip -n "$router" -6 route add "$service_v6/128" nhid "${groups[1]}"
}

wait_for_carrier() {
    local attempt namespace
    for ((attempt = 0; attempt < 100; attempt++)); do
        while read -r namespace; do
            if in_namespace "$namespace" sh -c 'cat /sys/class/net/tg*/operstate' | grep -qv up; then
                sleep 0.05
                continue 2
            fi
        done < <(namespaces)
        return
    done
    die "a device is up but has no carrier"
}

down() {
    local namespace pids attempt
    while read -r namespace; do
        exists "$namespace" || continue
        # A namespace lives as long as a process in it.
        for ((attempt = 0; attempt < 50; attempt++)); do
            mapfile -t pids < <(ip netns pids "$namespace")
            ((${#pids[@]} > 0)) || break
            kill -KILL "${pids[@]}" 2>/dev/null || true
            sleep 0.05
        done
        # Removed by name, the devices are gone when this returns; with their namespace, some time later.
        ip -n "$namespace" -o link show type veth | sed 's/^[0-9]*: \([^@:]*\).*/\1/' |
            xargs -r -n 1 ip -n "$namespace" link delete dev 2>/dev/null || true
        ip netns delete "$namespace"
    done < <(namespaces)
}

# The servers in the group now, without server $1.
members_but() {
    ip -n "$router" nexthop show id "${groups[0]}" | sed -n 's/.* group \([^ ]*\) .*/\1/p' | tr '/' '\n' |
        sed "s/,.*//; s/^${groups[0]}//" | grep -vx "$1" || true
}

# Replaces both groups by the servers that follow, each as N or N,WEIGHT.
replace_groups() {
    local group members
    for group in "${groups[@]}"; do
        members=$(printf "/$group%s" "$@")
        ip -n "$router" nexthop replace id "$group" group "${members:1}" type resilient
    done
}

change() {
    local what=$1 n=$2
    local -a others
    [[ $n =~ ^[1-3]$ ]] || usage
    exists "$router" || die "the lab is not up; run \`scripts/scale-out.sh up\`"
    mapfile -t others < <(members_but "$n")
    ((${#others[@]} > 0)) || die "server $n is the only one"
    case $what in
    add) replace_groups "${others[@]}" "$n" ;;
    drain) replace_groups "${others[@]/%/,$max_weight}" "$n,1" ;;
    remove) replace_groups "${others[@]}" ;;
    esac
}

show_buckets() {
    local group=${groups[0]} n
    for n in "${servers[@]}"; do
        echo "server $n: $(ip -n "$router" nexthop bucket list id "$group" nhid "$group$n" | wc -l) buckets"
    done
}

# Starts server $1 with tidegate $2, and waits until it serves.
start_server() {
    local n=$1
    mkdir -p "$scratch/$n"
    echo "server $n" >"$scratch/$n/who"
    # Not by the function: the process is to be the server, and not a shell that waits for it.
    ip netns exec "$name$n-server" "$2" serve --iface tgs0 --root "$scratch/$n" --cookie-key-file "$scratch/key" \
        --drain 10s --listen "http=$service_v4:80" --listen "http=[$service_v6]:80" >"$scratch/$n.log" 2>&1 &
    pids[n]=$!
    disown
    until grep -q '^tidegate: ready' "$scratch/$n.log"; do
        kill -0 "${pids[n]}" 2>/dev/null || die "server $n did not start: $(cat "$scratch/$n.log")"
        sleep 0.1
    done
}

# Runs the commands of a step while connections are made, and shows what became of those.
under_load() {
    local title=$1 seconds=$2 load
    shift 2
    echo "== $title"
    in_namespace "$client" "$bench" cps --url "http://$service_v4/who" --connections 4 --close server \
        --warm-up 100ms --duration "${seconds}s" >"$scratch/load.log" 2>&1 &
    load=$!
    sleep 0.5
    "$@"
    wait "$load" || true
    cat "$scratch/load.log"
    show_buckets
}

kill_one() {
    kill -KILL "${pids[1]}"
    echo "killed server 1; the router learns of it 0.3 s later"
    sleep 0.3
    change remove 1
}

add_one() {
    start_server 1 "$tidegate"
    change add 1
    echo "started server 1 again, and added it"
}

drain_one() {
    change drain 2
    sleep $((idle_seconds + 2))
    kill -WINCH "${pids[2]}"
    until grep -q '^tidegate: drained' "$scratch/2.log"; do
        sleep 0.1
    done
    change remove 2
    kill -TERM "${pids[2]}"
    echo "drained server 2, removed and stopped it"
}

demo() {
    tidegate=$(realpath -- "${1:-$root/target/release/tidegate}")
    bench=$(dirname "$tidegate")/tidegate-bench
    [[ -x $tidegate && -x $bench ]] || die "$tidegate and tidegate-bench beside it are needed; run \`make build\`"
    pids=()
    up no
    scratch=$(mktemp -d)
    trap 'down; rm -rf "$scratch"' EXIT
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$scratch/key")
    local n
    for n in "${servers[@]}"; do
        start_server "$n" "$tidegate"
    done
    under_load "killed" 3 kill_one
    under_load "added" 6 add_one
    under_load "drained" 10 drain_one
}

[[ $name =~ ^[A-Za-z0-9_-]+$ ]] || die "TIDEGATE_LAB=$name: letters, digits, - and _ make a namespace's name"
((EUID == 0)) || die "network namespaces take root; run this as root"
command=${1:-}
shift || true
case $command in
up)
    case $* in
    '') up no ;;
    --balancer) up yes ;;
    *) usage ;;
    esac
    ;;
down) down ;;
client) exec ip netns exec "$client" "$@" ;;
router) exec ip netns exec "$router" "$@" ;;
server)
    (($# >= 2)) || usage
    exec ip netns exec "$name$1-server" "${@:2}"
    ;;
add | drain | remove)
    (($# == 1)) || usage
    change "$command" "$1"
    ;;
buckets) show_buckets ;;
demo)
    (($# <= 1)) || usage
    demo "$@"
    ;;
*) usage ;;
esac
