# shellcheck shell=bash
# The checks of test-vm.sh, in the order in which they are run: each goes on where the one before it left off. They know
# $release, $nic and $queues, the programs $tidegate and $bench, and the folder $scratch.

readonly checks=(boots starts mode files segments uploads connections counters mtu_raised stops carrier jumbo cookies killed
    zero_copy serves vlan survives down_up queues nic quiet)

readonly server_v4=198.18.0.1 server_v6=2001:2::1
readonly not_there=77

# Says why a check has nothing to look at, and ends it.
not_applicable() {
    echo "$*"
    return "$not_there"
}

# ---- the server ------------------------------------------------------------------------------------------------------

# Starts it with arguments $*, and waits until it is ready and the link carries.
start() {
    vm_guest "rm -f /tmp/out /tmp/err
        tidegate serve --iface nic0 --root /www --listen http=$server_v4:80 --listen 'http=[$server_v6]:80' \
            --listen echo=$server_v4:7 $* </dev/null >/tmp/out 2>/tmp/err & echo \$! >/tmp/pid
        for i in \$(seq 600); do
            grep -q '^tidegate: ready' /tmp/out && break
            kill -0 \$(cat /tmp/pid) 2>/dev/null || break
            sleep 0.1
        done
        cat /tmp/out /tmp/err; grep -q '^tidegate: ready' /tmp/out || exit 1
        for i in \$(seq 100); do [ \"\$(cat /sys/class/net/nic0/carrier)\" = 1 ] && break; sleep 0.1; done"
}

# Sends it signal $1 and waits for its end.
end() {
    vm_guest "[ -e /tmp/pid ] || exit 0; pid=\$(cat /tmp/pid); kill -$1 \$pid 2>/dev/null
        for i in \$(seq 200); do [ -d /proc/\$pid ] || exit 0; sleep 0.1; done; echo it runs on; exit 1"
}

# Ends whatever runs, then starts it.
restart() {
    end TERM
    start "$@"
}

# Waits until what it logs has phrase $1, for some seconds.
logs() {
    vm_guest "for i in \$(seq 80); do grep -qF '$1' /tmp/err && exit 0; sleep 0.1; done; cat /tmp/err; exit 1"
}

# Prints the counters' totals, and with --queues those by queue.
counters() {
    vm_guest 'n=$(wc -l </tmp/out); kill -USR1 $(cat /tmp/pid)
        for i in $(seq 50); do tail -n +$((n + 1)) /tmp/out | grep -q ^output_lost && break; sleep 0.1; done
        tail -n +$((n + 1)) /tmp/out' | if [[ ${1:-} == --queues ]]; then grep '{'; else grep -v '{'; fi
}

# ---- the client ------------------------------------------------------------------------------------------------------

sum_of() {
    awk -v file="$1" '$2 == file { print $1 }' "$vm_state/sha256"
}

# Fetches every file over IPv4 and IPv6 and compares them; with $1, only up to so many octets.
fetch_all() {
    local host file wrong=0 sum
    for host in "$server_v4" "[$server_v6]"; do
        for file in 1.bin 100000.bin 20000000.bin; do
            ((${file%.bin} <= ${1:-20000000})) || continue
            sum=$(vm_client curl -gsS -m 60 "http://$host/$file" | sha256sum)
            if [[ ${sum%% *} != "$(sum_of "$file")" ]]; then
                echo "$host/$file differs"
                wrong=1
            fi
        done
    done
    return "$wrong"
}

# Whether a connection is answered within some seconds: after a restart neighbours and link may take a moment.
answers() {
    local try
    for try in $(seq 60); do
        vm_client curl -s -m 0.5 -o /dev/null "http://$server_v4/1.bin" && return
        sleep 0.1
    done
    echo "no answer in $try tries"
    return 1
}

# The same after the driver has reset its device, which may take the watchdog. That tells of the one driver that forgets its
# program then, and of no other.
answers_again() {
    local try
    for try in $(seq 5); do
        answers >/dev/null && break
    done
    vm_guest 'cat /tmp/err'
    echo "tries: $try"
    answers || return
    if [[ -z $(known_fault survives) ]]; then
        ! vm_guest 'grep -E "did not run the XDP program|delivered none" /tmp/err'
    fi
}

# Prints how many of $1 connections are not served.
refused_of() {
    local number refused=0
    for ((number = 0; number < $1; number++)); do
        vm_client curl -sS -m 3 -o /dev/null "http://$server_v4/1.bin" 2>/dev/null || refused=$((refused + 1))
    done
    echo "$refused"
}

upload() {
    vm_client timeout 120 "$bench" echo --target "$server_v4:7" --bytes "$1" --connections 4 --half-close
}

# ---- checks ----------------------------------------------------------------------------------------------------------

check_boots() {
    vm_up "$release" "$scratch/image" "$nic" "$queues"
}

check_starts() {
    start && answers
}

# Where the program runs, and whether frames are copied. With the default settings virtio_net copies: its cookies would
# bring no connection (drivers.rs).
expected_mode() {
    case $nic in
    e1000e) echo "xdp generic, af_xdp copy" ;;
    igb) if at_least 6.14; then echo "xdp native, af_xdp zero-copy"; else echo "xdp native, af_xdp copy"; fi ;;
    # Native XDP came with 6.6.
    vmxnet3) if at_least 6.6; then echo "xdp native, af_xdp copy"; else echo "xdp generic, af_xdp copy"; fi ;;
    *) echo "xdp native, af_xdp copy" ;;
    esac
}

check_mode() {
    expect_mode "$(expected_mode)"
}

# Every queue is served in mode $1.
expect_mode() {
    vm_guest "grep '^queue' /tmp/out; [ \$(grep -c '^queue .*$1' /tmp/out) = \$(ls -d /sys/class/net/nic0/queues/rx-* | wc -l) ]"
}

check_files() {
    fetch_all
}

# A segment each: what the device does with frames of every size.
check_segments() {
    local size got wrong=0
    for size in 1 500 900 1020 1100 1300 1460; do
        got=$(vm_client bash -c "exec 3<>/dev/tcp/$server_v4/7; head -c $size /dev/zero >&3; timeout 5 head -c $size <&3 | wc -c")
        if [[ $got != "$size" ]]; then
            echo "an echo of $size octets brought $got"
            wrong=1
        fi
    done
    return "$wrong"
}

check_uploads() {
    upload 20MB
}

check_connections() {
    vm_client "$bench" load --url "http://$server_v4/1.bin" --connections 200 --duration 3s
}

# What the program redirected the sockets got, or the kernel counted its loss; and every frame is somewhere.
check_counters() {
    counters | awk '{ v[$1] = $2 } END {
        for (name in v) if (name ~ /^xdp_redirect/) steered += v[name]
        got = v["afxdp_rx_frames"] + v["afxdp_kernel_rx_dropped"] + v["afxdp_kernel_rx_ring_full"]
        frames = v["frames_pool"] + v["frames_fill"] + v["frames_tx"] + v["frames_in_hand"] + v["frames_handed_over"]
        invalid = v["afxdp_kernel_tx_invalid_descs"] + v["afxdp_kernel_rx_invalid_descs"]
        print "steered", steered, "got", got, "frames", frames, "of", v["frames_total"]
        print "malformed", v["xdp_pass_malformed"], "invalid", invalid
        exit !(got > 0 && steered == got && frames == v["frames_total"] && v["xdp_pass_malformed"] == 0 && invalid == 0 &&
            v["afxdp_handover_out"] == v["afxdp_handover_returned"]) }'
}

# An MTU that the frames do not take while serving: warned about, unless the driver refuses it.
check_mtu_raised() {
    local refusal
    refusal=$(vm_guest 'ip link set dev nic0 mtu 3600' 2>&1) || {
        not_applicable "the driver refuses an MTU of 3600 while it is served: $refusal"
        return
    }
    logs "has an MTU of 3600 now, 1500 before, and the frames take one of at most" || return
    vm_guest 'ip link set dev nic0 mtu 1500'
    logs "has an MTU of 1500 now, 3600 before" && answers_again
}

no_program() {
    ! vm_guest 'ip link show nic0' | grep xdp
}

check_stops() {
    end TERM && no_program
}

# A link that goes when the program is attached, and comes seconds later, is told of.
check_carrier() {
    vm_guest 'cat /tmp/err; grep -qE "has no carrier yet|has lost its carrier" /tmp/err' ||
        not_applicable "the link stays up when the program is attached" || return
    vm_guest 'grep -qE "has a carrier (now|again)" /tmp/err'
}

# Cookies, with an MTU that takes frames of 4,096 octets.
check_jumbo() {
    vm_guest 'ip link set dev nic0 mtu 3000' || return
    vm_client ip link set dev vm0 mtu 3000
    start --syn-cookies always && answers && fetch_all && upload 5MB && check_counters
}

check_cookies() {
    local seen
    seen=$(counters | grep -E '^(xdp_tx_syn_cookie|tcp_cookie_connections) [1-9]')
    echo "$seen"
    (($(wc -l <<<"$seen") == 2))
}

check_killed() {
    end KILL && no_program
    vm_guest 'ip link set dev nic0 mtu 1500'
    vm_client ip link set dev vm0 mtu 1500
}

# virtio_net in zero-copy mode, which needs a service without cookies.
check_zero_copy() {
    [[ $nic == virtio-zc ]] || not_applicable "the default mode has been looked at" || return
    at_least 6.13 || not_applicable "the driver has it from 6.13 on" || return
    restart --syn-cookies never && answers && expect_mode "xdp native, af_xdp zero-copy" && fetch_all && upload 20MB &&
        check_counters
}

check_serves() {
    restart && answers && fetch_all
}

# Frames with a tag, which the device must leave in them.
check_vlan() {
    local code=0
    vm_guest 'load 8021q; ip link add link nic0 name nic0.5 type vlan id 5 && ip link set nic0.5 up &&
        ethtool -K nic0 rxvlan off 2>/dev/null; ethtool -k nic0 | grep rx-vlan-offload
        ! ethtool -k nic0 | grep -q "^rx-vlan-offload: on"' || return
    vm_client ip link add vlan0 type veth peer name vlan1
    # shellcheck disable=SC2016
    vm_client bash -c 'echo 0 >/proc/sys/net/ipv6/conf/vlan0/accept_dad
        for name in vlan0 vlan1; do ethtool -K $name tx off tso off gso off gro off >/dev/null; ip link set $name up; done'
    vm_client ip address del 198.18.0.2/24 dev vm0
    vm_client ip -6 address del 2001:2::2/64 dev vm0
    vm_client ip address add 198.18.0.2/24 dev vlan0
    vm_client ip -6 address add 2001:2::2/64 dev vlan0 nodad
    vm_client ip neigh replace "$server_v4" lladdr "${vm_mac}1" dev vlan0 nud permanent
    vm_client ip -6 neigh replace "$server_v6" lladdr "${vm_mac}1" dev vlan0 nud permanent
    # Not by a function, whose process would be another than the relay's.
    ip netns exec "$VM_NS" "$bench" link vlan1 vm0 --vlan 5 --duration 300s >"$scratch/link" 2>&1 3>&- 4>&- 5>&- &
    local link=$!
    answers && fetch_all && upload 2MB || code=1
    kill "$link"
    wait "$link" || true
    cat "$scratch/link"
    vm_client ip link del vlan0
    vm_client ip address add 198.18.0.2/24 dev vm0
    vm_client ip -6 address add 2001:2::2/64 dev vm0 nodad
    vm_guest 'ip link del nic0.5; ethtool -K nic0 rxvlan on 2>/dev/null; true'
    return "$code"
}

# A download while the interface is down for two seconds.
check_survives() {
    local sum
    answers || return
    vm_client curl -sS -m 90 --limit-rate 4M "http://$server_v4/20000000.bin" 2>"$scratch/curl" |
        sha256sum >"$scratch/sum" &
    sleep 1
    vm_guest "ip link set nic0 down; sleep 2; ip link set nic0 up; ip -6 address replace $server_v6/64 dev nic0 nodad"
    wait $! || true
    cat "$scratch/curl"
    read -r sum _ <"$scratch/sum"
    [[ $sum == "$(sum_of 20000000.bin)" ]]
}

# And new connections after it, which may take the watchdog.
check_down_up() {
    answers_again && fetch_all 100000 && check_counters || return
    if [[ -n $(known_fault survives) ]]; then
        logs "did not run the XDP program for them, though it is attached; it is attached anew" &&
            counters | grep '^device_reattached 1$'
    fi
}

# Queues that come while serving: what arrives on them is counted and warned about, and served after a restart.
check_queues() {
    local refused passed
    ((queues > 1)) || not_applicable "the device has one queue" || return
    end TERM
    vm_guest 'ethtool -L nic0 combined 1' || not_applicable "the driver does not change its queues" || return
    start && answers || return
    if ! vm_guest "ethtool -L nic0 combined $queues"; then
        end TERM
        vm_guest "ethtool -L nic0 combined $queues"
        not_applicable "the driver does not change its queues while it is served"
        return
    fi
    logs "has $queues receive queues now, 1 before, and 1 are served" || return
    sleep 6
    refused=$(refused_of 24)
    passed=$(counters --queues | awk '/^xdp_pass_no_socket\{/ { sum += $2 } END { print sum }')
    echo "$refused of 24 connections refused, $passed segments counted by xdp_pass_no_socket"
    ((refused > 0 && passed >= refused)) || return
    restart && answers || return
    refused=$(refused_of 24)
    echo "$refused of 24 refused after a restart"
    ((refused == 0))
}

# Prints everything `tidegate nic` may change.
settings() {
    vm_guest 'for what in l g x k c n; do ethtool -$what nic0; done 2>&1
        ip link show dev nic0 | grep -o "mtu [0-9]* qdisc [a-z_]*"
        cd /sys/class/net/nic0; grep . gro_flush_timeout napi_defer_hard_irqs threaded queues/*/?ps_cpus
        grep . /proc/sys/vm/nr_hugepages
        sed -n "s/^ *\([0-9]*\):.*\(nic0.*\|virtio.*\)/\1 \2/p" /proc/interrupts | while read number name; do
            echo "$name: $(cat /proc/irq/$number/smp_affinity_list)"; done' 2>/dev/null
}

# What `nic apply` changes is put back by `nic undo`, also when the server was killed meanwhile.
check_nic() {
    local served
    vm_guest 'tidegate nic --help' || not_applicable "tidegate has no command nic" || return
    end TERM
    settings >"$scratch/before"
    served=$(vm_guest "tidegate nic apply nic0 --listen http=$server_v4:80 2>&1") || {
        echo "$served"
        return 1
    }
    echo "$served"
    settings >"$scratch/applied"
    if cmp -s "$scratch/before" "$scratch/applied"; then
        not_applicable "there is nothing to change about the driver"
        return
    fi
    start --queues "$(sed -n 's/^serve with --queues //p' <<<"$served")" && answers && fetch_all 100000 || return
    end KILL
    vm_guest 'tidegate nic undo nic0' || return
    settings >"$scratch/after"
    diff "$scratch/before" "$scratch/after"
}

check_quiet() {
    ! vm_guest dmesg | grep -E 'WARNING|BUG|Oops|Call Trace|page_pool|swiotlb|hung|timed out'
}
