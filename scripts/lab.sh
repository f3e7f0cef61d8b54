#!/usr/bin/env bash
# The lab: a server and a client in network namespaces of their own, joined by a veth pair, or by two with a namespace
# in the middle.
#
#   scripts/lab.sh up [--middle] [--queues N]
#                                    make it, with N queues on each end (default 1), and with --middle the namespace in
#                                    the middle; does nothing if it is up like that
#   scripts/lab.sh remake [--queues N]
#                                    delete the devices and make them anew; what runs in the lab stays (not with --middle)
#   scripts/lab.sh down              end what runs in it and remove it; does nothing if it is not up
#   scripts/lab.sh status            say what is there; exit code 1 if the lab is not up
#   scripts/lab.sh server CMD...     run a command in the server's namespace
#   scripts/lab.sh client CMD...     run a command in the client's namespace
#   scripts/lab.sh middle CMD...     run a command in the namespace in the middle
#   scripts/lab.sh xps on|off        on: the client sends on the queue of the sending CPU, so that flows change queues
#                                    off (as after up): a flow stays on the queue of its hash (not with --middle)
#
#   namespace   device   addresses
#   tg-server   tgs0     198.18.0.1/24   2001:2::1/64
#   tg-client   tgc0     198.18.0.2/24   2001:2::2/64
#   tg-middle   tgm0     none, joined to tgc0
#   tg-middle   tgm1     none, joined to tgs0
#
# With --middle nothing gets from one side to the other until something in the middle relays it:
#
#   scripts/lab.sh middle target/release/tidegate-bench link tgm0 tgm1 --delay 10ms --loss 1%
#
# The addresses are those reserved for benchmarks (RFC 2544, RFC 5180). TIDEGATE_LAB=NAME makes a second lab, with
# namespaces NAME-server, NAME-client and NAME-middle. TIDEGATE_XDP_PASS is the object of the XDP program on the
# server's peer, if not target/ebpf/xdp-pass.o. No interface outside of these namespaces is touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${TIDEGATE_LAB:-tg}
server=$name-server
client=$name-client
middle=$name-middle
server_device=tgs0
client_device=tgc0
middle_client_device=tgm0
middle_server_device=tgm1
server_mac=02:54:47:00:00:01
client_mac=02:54:47:00:00:02
middle_client_mac=02:54:47:00:00:03
middle_server_mac=02:54:47:00:00:04
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

# The ends of the lab that is there, as lines "NAMESPACE DEVICE", the server's and its peer first.
ends() {
    echo "$server $server_device"
    if exists "$middle"; then
        echo "$middle $middle_server_device"
        echo "$middle $middle_client_device"
    fi
    echo "$client $client_device"
}

# Whether the whole lab is up. With arguments: of kind $1 (direct or middle) and with $2 queues.
is_up() {
    local kind=direct queues namespace device number=0
    exists "$server" && exists "$client" || return 1
    if exists "$middle"; then
        kind=middle
    fi
    [[ $kind == "${1:-$kind}" ]] || return 1
    queues=$(queues_of "$server" "$server_device")
    [[ -n $queues && $queues == "${2:-$queues}" ]] || return 1
    # All ends administratively up, and the program on the server's peer.
    while read -r namespace device; do
        [[ $(queues_of "$namespace" "$device") == "$queues" ]] || return 1
        ip -n "$namespace" -o link show dev "$device" up | grep -q . || return 1
        number=$((number + 1))
        if ((number == 2)); then
            ip -n "$namespace" -o link show dev "$device" | grep -q xdp || return 1
        fi
    done < <(ends)
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
    if exists "$middle"; then
        # The middle is a wire: it says nothing of its own.
        in_namespace "$middle" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    fi
}

# Builds the XDP program of the server's peer if it is not there, and prints the object's path.
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
    # Checksums are filled in before the frame leaves: AF_XDP and AF_PACKET hand over what is in the frame, not what a
    # device would have put there. Segmentation goes with it, since it needs the device's checksums.
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

# Waits until all ends have carrier, which follows "up" by an instant.
wait_for_carrier() {
    local attempt namespace device waiting
    for ((attempt = 0; attempt < 100; attempt++)); do
        waiting=
        while read -r namespace device; do
            if [[ $(in_namespace "$namespace" cat "/sys/class/net/$device/operstate") != up ]]; then
                waiting=$device
            fi
        done < <(ends)
        [[ -n $waiting ]] || return 0
        sleep 0.05
    done
    die "$waiting is up but has no carrier"
}

# Joins device $2 (MAC address $3) of namespace $1 to device $5 ($6) of namespace $4, with $7 queues on each end.
join() {
    # Made inside the namespaces, so that the devices never show up, or clash, outside of them.
    ip link add "$2" netns "$1" address "$3" numrxqueues "$7" numtxqueues "$7" type veth \
        peer name "$5" netns "$4" address "$6" numrxqueues "$7" numtxqueues "$7"
}

# Makes the devices of a lab of kind $1 with $2 queues, and the program $3 on the peers.
make_devices() {
    local kind=$1 queues=$2 object=$3 device
    # What XDP sends towards an end of a veth pair is lost unless that end has a native program too.
    if [[ $kind == middle ]]; then
        join "$server" "$server_device" "$server_mac" "$middle" "$middle_server_device" "$middle_server_mac" "$queues"
        join "$client" "$client_device" "$client_mac" "$middle" "$middle_client_device" "$middle_client_mac" "$queues"
        in_namespace "$middle" ip link set dev "$middle_server_device" xdpdrv object "$object" section xdp
        for device in "$middle_server_device" "$middle_client_device"; do
            configure_device "$middle" "$device"
            # Frames go on as they came. An XDP program in native mode turns GRO on, so this comes after it.
            in_namespace "$middle" ethtool -K "$device" gro off >/dev/null
        done
    else
        join "$server" "$server_device" "$server_mac" "$client" "$client_device" "$client_mac" "$queues"
        in_namespace "$client" ip link set dev "$client_device" xdpdrv object "$object" section xdp
    fi
    configure_device "$server" "$server_device" 198.18.0.1/24 2001:2::1/64
    configure_device "$client" "$client_device" 198.18.0.2/24 2001:2::2/64
    wait_for_carrier
}

# Deletes the devices of a lab without a middle, if they are there, and makes them anew with $1 queues. What runs in the
# namespaces stays.
remake() {
    local object
    exists "$server" && exists "$client" && ! exists "$middle" || die "the lab is not up like that; run \`scripts/lab.sh up\`"
    object=$(xdp_pass_object)
    ip -n "$server" link delete dev "$server_device" 2>/dev/null || true
    make_devices direct "$1" "$object"
}

up() {
    local kind=$1 queues=$2 object
    if is_up "$kind" "$queues"; then
        return
    fi
    object=$(xdp_pass_object)
    down
    # Whatever happens from here on, a lab is there whole or not at all.
    trap 'down' EXIT
    ip netns add "$server"
    ip netns add "$client"
    if [[ $kind == middle ]]; then
        ip netns add "$middle"
    fi
    set_sysctls
    make_devices "$kind" "$queues" "$object"
    trap - EXIT
}

down() {
    local namespace pids attempt
    for namespace in "$server" "$client" "$middle"; do
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
    if exists "$client"; then
        ip -n "$client" link delete dev "$client_device" 2>/dev/null || true
    fi
    for namespace in "$server" "$client" "$middle"; do
        if exists "$namespace"; then
            ip netns delete "$namespace"
        fi
    done
}

status() {
    local namespace device
    local -a namespaces=("$server" "$client" "$middle")
    if ! is_up; then
        echo "lab: down"
        for namespace in "${namespaces[@]}"; do
            if exists "$namespace"; then
                echo "lab: namespace $namespace is there all the same; \`scripts/lab.sh down\` removes it"
            fi
        done
        return 1
    fi
    echo "lab: up$(if exists "$middle"; then echo ', with a middle'; fi)," \
        "queues on each end: $(queues_of "$server" "$server_device")"
    while read -r namespace device; do
        ip -n "$namespace" -brief address show dev "$device"
    done < <(ends)
    ip -n "$server" link show dev "$server_device" | sed -n 's/^ *\(prog\/xdp .*\)/server: \1/p'
    for namespace in "${namespaces[@]}"; do
        exists "$namespace" || continue
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
    if exists "$middle"; then
        die "in a lab with a middle the client's queues are not the server's; run \`scripts/lab.sh up\` without --middle"
    fi
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
    local namespace=$1 option=
    shift
    (($# > 0)) || usage
    if [[ $namespace == "$middle" ]]; then
        option=' --middle'
    fi
    exists "$namespace" || die "the lab is not up like that; run \`scripts/lab.sh up$option\`"
    exec ip netns exec "$namespace" "$@"
}

[[ $name =~ ^[A-Za-z0-9_-]+$ ]] || die "TIDEGATE_LAB=$name: letters, digits, - and _ make a namespace's name"
command=${1:-}
shift || true
case $command in
up | remake)
    kind=direct
    queues=1
    while (($# > 0)); do
        case $1 in
        --middle)
            [[ $command == up ]] || usage
            kind=middle
            shift
            ;;
        --queues)
            (($# >= 2)) || usage
            queues=$2
            shift 2
            ;;
        *)
            usage
            ;;
        esac
    done
    [[ $queues =~ ^[1-9][0-9]?$ ]] && ((queues <= max_queues)) || die "--queues takes a number from 1 to $max_queues"
    require_root
    if [[ $command == up ]]; then
        up "$kind" "$queues"
    else
        remake "$queues"
    fi
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
middle)
    require_root
    run_in "$middle" "$@"
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
