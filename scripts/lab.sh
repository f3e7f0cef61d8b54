#!/usr/bin/env bash
# The lab: a server and a client in network namespaces of their own, joined by a veth pair.
#
#   scripts/lab.sh up [--queues N]   make it, with N queues on each end (default 1); does nothing if it is up like that
#   scripts/lab.sh down              end what runs in it and remove it; does nothing if it is not up
#   scripts/lab.sh status            say what is there; exit code 1 if the lab is not up
#   scripts/lab.sh server CMD...     run a command in the server's namespace
#   scripts/lab.sh client CMD...     run a command in the client's namespace
#   scripts/lab.sh xps on|off        on: the client sends on the queue of the sending CPU, so that flows change queues
#                                    off (as after up): a flow stays on the queue of its hash
#
#   namespace   device   addresses
#   tg-server   tgs0     198.18.0.1/24   2001:2::1/64
#   tg-client   tgc0     198.18.0.2/24   2001:2::2/64
#
# The addresses are those reserved for benchmarks (RFC 2544, RFC 5180). TIDEGATE_LAB=NAME makes a second lab, with
# namespaces NAME-server and NAME-client. TIDEGATE_XDP_PASS is the object of the client's XDP program, if not
# target/ebpf/xdp-pass.o. No interface outside of the two namespaces is touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${TIDEGATE_LAB:-tg}
server=$name-server
client=$name-client
server_device=tgs0
client_device=tgc0
server_mac=02:54:47:00:00:01
client_mac=02:54:47:00:00:02
# The XDP program has maps for this many queues (MAX_QUEUES in ebpf/abi).
max_queues=64

die() {
    echo "lab: $*" >&2
    exit 1
}

usage() {
    # The comment at the top of this file.
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

require_root() {
    ((EUID == 0)) || die "network namespaces take root; run this as root"
}

exists() {
    [[ -e /run/netns/$1 ]]
}

# Runs a command inside namespace $1, with that namespace's /sys.
in_namespace() {
    ip netns exec "$@"
}

# The number of receive queues of device $2 in namespace $1; nothing if there is no such device.
queues_of() {
    ip -n "$1" -d -o link show dev "$2" 2>/dev/null | sed -n 's/.* numrxqueues \([0-9]*\).*/\1/p'
}

# Whether the whole lab is up. With an argument: with that many queues.
is_up() {
    local queues
    exists "$server" && exists "$client" || return 1
    queues=$(queues_of "$server" "$server_device")
    [[ -n $queues && $queues == "${1:-$queues}" && $(queues_of "$client" "$client_device") == "$queues" ]] || return 1
    # Both ends administratively up, and the program on the client's.
    ip -n "$server" -o link show dev "$server_device" up | grep -q . || return 1
    ip -n "$client" -o link show dev "$client_device" up | grep -q 'xdp'
}

# What the namespaces need before there is a device: no address detection or autoconfiguration that would delay the
# addresses or put foreign traffic on the wire, and a client with the ports and queues for many connections.
set_sysctls() {
    local namespace
    for namespace in "$server" "$client"; do
        in_namespace "$namespace" sysctl -q -w \
            net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
            net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0 \
            net.ipv6.conf.all.autoconf=0 net.ipv6.conf.default.autoconf=0 \
            net.ipv6.conf.all.router_solicitations=0 net.ipv6.conf.default.router_solicitations=0 \
            net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1 \
            net.ipv4.tcp_max_syn_backlog=65535 net.core.somaxconn=65535
    done
}

# Builds the client's XDP program if it is not there, and prints the object's path.
xdp_pass_object() {
    local object=${TIDEGATE_XDP_PASS:-$root/target/ebpf/xdp-pass.o}
    if [[ ! -f $object ]]; then
        [[ -z ${TIDEGATE_XDP_PASS:-} ]] || die "TIDEGATE_XDP_PASS names $object, which is not there"
        "$root/scripts/build-ebpf.sh" "$root/target/ebpf/tidegate.o" >&2
    fi
    echo "$object"
}

# Gives device $2 of namespace $1 the addresses that follow, and sets it up.
configure_device() {
    local namespace=$1 device=$2 address
    shift 2
    # Checksums are filled in before the frame leaves: AF_XDP hands over what is in the frame, not what a device would
    # have put there. Segmentation goes with it, since it needs the device's checksums.
    in_namespace "$namespace" ethtool -K "$device" tx off tso off gso off >/dev/null
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

# Waits until both ends have carrier, which follows "up" by an instant.
wait_for_carrier() {
    local attempt
    for ((attempt = 0; attempt < 100; attempt++)); do
        if [[ $(in_namespace "$server" cat "/sys/class/net/$server_device/operstate") == up &&
            $(in_namespace "$client" cat "/sys/class/net/$client_device/operstate") == up ]]; then
            return
        fi
        sleep 0.05
    done
    die "the veth pair is up but has no carrier"
}

up() {
    local queues=$1 object
    if is_up "$queues"; then
        return
    fi
    object=$(xdp_pass_object)
    down
    # Whatever happens from here on, a lab is there whole or not at all.
    trap 'down' EXIT
    ip netns add "$server"
    ip netns add "$client"
    set_sysctls
    # Made inside the namespaces, so that the devices never show up, or clash, outside of them.
    ip link add "$server_device" netns "$server" address "$server_mac" numrxqueues "$queues" numtxqueues "$queues" \
        type veth \
        peer name "$client_device" netns "$client" address "$client_mac" numrxqueues "$queues" numtxqueues "$queues"
    # What XDP sends towards an end of a veth pair is lost unless that end has a native program too.
    in_namespace "$client" ip link set dev "$client_device" xdpdrv object "$object" section xdp
    configure_device "$server" "$server_device" 198.18.0.1/24 2001:2::1/64
    configure_device "$client" "$client_device" 198.18.0.2/24 2001:2::2/64
    wait_for_carrier
    trap - EXIT
}

down() {
    local namespace pids attempt
    for namespace in "$server" "$client"; do
        exists "$namespace" || continue
        # A namespace lives as long as a process in it.
        for ((attempt = 0; attempt < 50; attempt++)); do
            mapfile -t pids < <(ip netns pids "$namespace")
            ((${#pids[@]} > 0)) || break
            kill -KILL "${pids[@]}" 2>/dev/null || true
            sleep 0.05
        done
    done
    # Either end takes the other with it. Removed by name, it is gone when this returns; with its namespace, some time
    # later.
    if exists "$server"; then
        ip -n "$server" link delete dev "$server_device" 2>/dev/null || true
    fi
    for namespace in "$server" "$client"; do
        if exists "$namespace"; then
            ip netns delete "$namespace"
        fi
    done
}

status() {
    local namespace
    if ! is_up; then
        echo "lab: down"
        for namespace in "$server" "$client"; do
            if exists "$namespace"; then
                echo "lab: namespace $namespace is there all the same; \`scripts/lab.sh down\` removes it"
            fi
        done
        return 1
    fi
    echo "lab: up, queues on each end: $(queues_of "$server" "$server_device")"
    ip -n "$server" -brief address show dev "$server_device"
    ip -n "$client" -brief address show dev "$client_device"
    ip -n "$server" link show dev "$server_device" | sed -n 's/^ *\(prog\/xdp .*\)/server: \1/p'
    for namespace in "$server" "$client"; do
        # A process may end between the two commands.
        ip netns pids "$namespace" | { xargs -r ps -o pid=,args= -p || true; } | sed "s/^/$namespace: /"
    done
}

# The CPUs of transmit queue $1 of $2 as the kernel's mask: every $2-th CPU, in words of 32 bits, the highest first.
cpu_mask() {
    local queue=$1 queues=$2 cpus word cpu mask=
    cpus=$(getconf _NPROCESSORS_CONF)
    local -a words=()
    for ((word = 0; word <= (cpus - 1) / 32; word++)); do
        words[word]=0
    done
    for ((cpu = queue; cpu < cpus; cpu += queues)); do
        words[cpu / 32]=$((words[cpu / 32] | 1 << cpu % 32))
    done
    for ((word = ${#words[@]} - 1; word >= 0; word--)); do
        mask+=$(printf '%08x' "${words[word]}")${word:+,}
    done
    echo "${mask%,}"
}

xps() {
    local queues queue mask
    is_up || die "the lab is not up; run \`scripts/lab.sh up\`"
    queues=$(queues_of "$client" "$client_device")
    for ((queue = 0; queue < queues; queue++)); do
        mask=0
        if [[ $1 == on ]]; then
            mask=$(cpu_mask "$queue" "$queues")
        fi
        # shellcheck disable=SC2016 # expanded by the inner shell
        in_namespace "$client" sh -c 'echo "$1" >"$2"' sh \
            "$mask" "/sys/class/net/$client_device/queues/tx-$queue/xps_cpus"
    done
}

run_in() {
    local namespace=$1
    shift
    (($# > 0)) || usage
    exists "$namespace" || die "the lab is not up; run \`scripts/lab.sh up\`"
    exec ip netns exec "$namespace" "$@"
}

[[ $name =~ ^[A-Za-z0-9_-]+$ ]] || die "TIDEGATE_LAB=$name: letters, digits, - and _ make a namespace's name"
command=${1:-}
shift || true
case $command in
up)
    queues=1
    if [[ ${1:-} == --queues && $# -eq 2 ]]; then
        queues=$2
    elif (($# > 0)); then
        usage
    fi
    [[ $queues =~ ^[1-9][0-9]?$ ]] && ((queues <= max_queues)) || die "--queues takes a number from 1 to $max_queues"
    require_root
    up "$queues"
    ;;
down)
    (($# == 0)) || usage
    require_root
    down
    ;;
status)
    (($# == 0)) || usage
    require_root
    status
    ;;
server)
    require_root
    run_in "$server" "$@"
    ;;
client)
    require_root
    run_in "$client" "$@"
    ;;
xps)
    [[ $# -eq 1 && $1 =~ ^(on|off)$ ]] || usage
    require_root
    xps "$1"
    ;;
*)
    usage
    ;;
esac
