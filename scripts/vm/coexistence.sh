# The checks of test-coexistence.sh, in the virtual machine: tidegate and xdp-filter on one end of a veth pair, come and
# gone in every order. A line for each; exit code 1 if one fails.

failed=0
server=198.18.0.1
client=198.18.0.2
denied=198.18.0.3
loader=$(find /tools -name ld-linux-x86-64.so.2 -type f | head -1)

# busybox would take its own.
ip() {
    /usr/sbin/ip "$@"
}

# Runs what follows the name $1, and prints whether it went well.
check() {
    name=$1
    shift
    if "$@"; then
        echo "ok: $name"
    else
        echo "FAILED: $name"
        ip link show dev s0
        find /sys/fs/bpf/xdp /sys/fs/bpf/tidegate
        cat /tmp/tidegate.log /tmp/filter.log
        failed=1
    fi
}

refuse() {
    ! "$@"
}

filter() {
    "$loader" --library-path /tools/usr/lib/x86_64-linux-gnu:/tools/lib/x86_64-linux-gnu \
        /tools/usr/sbin/xdp-filter "$@" >>/tmp/filter.log 2>&1
}

# xdp-filter on the server's device, which drops what comes from $denied.
load_filter() {
    filter load s0 && filter ip -m src "$denied"
}

start_tidegate() {
    : >/tmp/tidegate.log
    tidegate serve --iface s0 --listen "http=$server:80" --attach dispatcher "$@" >/tmp/tidegate.log 2>&1 &
    tidegate=$!
    for _ in $(seq 600); do
        grep -q "tidegate: ready" /tmp/tidegate.log && return 0
        kill -0 "$tidegate" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

stop_tidegate() {
    kill "$tidegate"
    wait "$tidegate"
}

kill_tidegate() {
    kill -9 "$tidegate"
    wait "$tidegate" 2>/dev/null
}

# Fetches a page from address $2; it has to be $1's, "tidegate" or "the kernel".
served_by() {
    by=$1
    shift
    ip netns exec client curl -s -m 5 -D /tmp/head -o /tmp/page --interface "$1" "http://$server/" || return 1
    case $by in
    tidegate) grep -q "Server: tidegate" /tmp/head ;;
    *) ! grep -q "Server: tidegate" /tmp/head ;;
    esac
}

# Whether nothing is left: no program on the device, no pin.
is_clean() {
    ! ip link show dev s0 | grep -q prog && [ -z "$(ls /sys/fs/bpf/xdp | grep dispatch)" ]
}

with_kernel_server() {
    mkdir -p /www
    echo hello >/www/index.html
    httpd -p "$server:80" -h /www
    "$@"
    code=$?
    kill "$(pidof httpd)"
    return "$code"
}

both_serve() {
    served_by tidegate "$client" && refuse served_by tidegate "$denied"
}

# After kill -9: $1 is served by the kernel.
passes() {
    with_kernel_server served_by "the kernel" "$1"
}

set_up() {
    while read -r module; do insmod "/modules/$module.ko"; done </modules/veth.order
    mount -t bpf bpf /sys/fs/bpf
    mkdir -p /run /var/run
    ip link set lo up
    ip link add s0 type veth peer name c0
    ip netns add client
    ip link set c0 netns client
    ip address add "$server/24" dev s0
    for address in "$client" "$denied"; do
        ip -n client address add "$address/24" dev c0
    done
    ethtool -K s0 tx off tso off gso off >/dev/null
    ip netns exec client ethtool -K c0 tx off tso off gso off >/dev/null
    ip link set s0 up
    ip -n client link set c0 up
    # A veth device drops what the other end's program sends back, unless it has a program itself.
    ip -n client link set dev c0 xdpdrv object /xdp-pass.o section xdp
}

refusal() {
    tidegate serve --iface s0 --listen "http=$server:80" >/tmp/tidegate.log 2>&1
    [ $? = 1 ] && grep "xdp_dispatcher of libxdp (id " /tmp/tidegate.log | grep 'attach = "dispatcher"'
}

set_up
check "xdp-filter is loaded" load_filter
check "attach = link refuses, and names the dispatcher and the key" refusal
check "tidegate comes to xdp-filter" start_tidegate --syn-cookies always
check "both do their work" both_serve
check "xdp-filter goes first" filter unload s0
check "tidegate serves all" served_by tidegate "$denied"
check "tidegate goes" stop_tidegate
check "nothing is left" is_clean

check "tidegate comes first" start_tidegate --syn-cookies always
check "and serves" served_by tidegate "$denied"
check "xdp-filter comes to it" load_filter
check "both do their work" both_serve
check "tidegate goes first" stop_tidegate
check "xdp-filter does its work" with_kernel_server served_by "the kernel" "$client"
check "still" with_kernel_server refuse served_by "the kernel" "$denied"
check "xdp-filter goes" filter unload s0
check "nothing is left" is_clean

check "tidegate comes, alone" start_tidegate --syn-cookies always --deny "$denied"
check "and denies" refuse served_by tidegate "$denied"
first=$tidegate
check "a second one is refused" refuse start_tidegate
tidegate=$first
kill_tidegate
check "after kill -9 its program stays" refuse is_clean
check "and passes to the kernel" passes "$client"
check "what it denied as well" passes "$denied"
check "a new one takes its place" start_tidegate
check "and serves" served_by tidegate "$denied"
check "xdp-filter comes to it" load_filter
kill_tidegate
check "after kill -9 xdp-filter does its work" passes "$client"
check "still" refuse passes "$denied"
check "a new one comes" start_tidegate
check "both do their work" both_serve
check "tidegate goes" stop_tidegate
check "xdp-filter goes" filter unload s0
check "nothing is left" is_clean
exit "$failed"
