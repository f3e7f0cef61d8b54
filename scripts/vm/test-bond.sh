#!/usr/bin/env bash
# Has tidegate serve on a bond in a virtual machine, and fails the bond over in the middle of downloads, which have to be equal.
#
#   scripts/vm/test-bond.sh TIDEGATE
#
# Prints a line for each check. Exit code 1 if one failed. `make test-vm` calls this.
#
# Settings (environment):
#   KERNEL        as in vm.sh (default: trixie-backports)
#   NIC           the slaves, as in vm.sh (default: virtio)
#   VM_DIR, VM_SECONDS   as in test-vm.sh
set -euo pipefail

VM_NS=${VM_NS:-tg-test-bond}
# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/vm/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"

if (($# != 1)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$(readlink -f "$1")
[[ -x $tidegate && ${tidegate##*/} == tidegate ]] || vm_die "$1 is no program, or not tidegate"

# shellcheck source=scripts/check.sh
source "$(dirname "${BASH_SOURCE[0]}")/../check.sh"

# Makes the bond of both NICs, with the address that the first had.
make_bond() {
    vm_guest 'load bonding
        for nic in nic0 nic1; do ip address flush dev $nic; ip link set dev $nic down; done
        # The module makes one by itself.
        ip link delete bond0 2>/dev/null
        ip link add bond0 type bond mode active-backup miimon 50 || exit 1
        for nic in nic0 nic1; do ip link set dev $nic master bond0 || exit 1; done
        ip link set dev bond0 up
        ip address add 198.18.0.1/24 dev bond0
        echo nic0 >/sys/class/net/bond0/bonding/primary
        for i in $(seq 50); do grep -qx nic0 /sys/class/net/bond0/bonding/active_slave && exit 0; sleep 0.1; done
        cat /proc/net/bonding/bond0; exit 1'
}

start() {
    vm_guest 'tidegate serve --iface bond0 --root /www --listen http=198.18.0.1:80 </dev/null >/tmp/out 2>/tmp/err &
        for i in $(seq 600); do grep -q "^tidegate: ready" /tmp/out && break; pidof tidegate >/dev/null || break; sleep 0.1; done
        cat /tmp/out /tmp/err; grep -q "frames, devices nic0 nic1$" /tmp/out'
}

# Prints the number of frames that NIC $1 has sent.
sent() {
    vm_guest "cat /sys/class/net/$1/statistics/tx_packets"
}

# Downloads 20 MB while the guest runs $1, after which the bond has to send by $2 and no more by $3.
download() {
    local action=$1 active=$2 idle=$3 expected idle_before active_before client
    expected=$(awk '$2 == "20000000.bin" { print $1 }' "$vm_state/sha256")
    vm_client curl -sS -m 100 --limit-rate 3M -o "$scratch/file" http://198.18.0.1/20000000.bin &
    client=$!
    sleep 2
    vm_guest "$action; sleep 1"
    idle_before=$(sent "$idle") active_before=$(sent "$active")
    wait "$client"
    echo "$active has sent $(($(sent "$active") - active_before)) frames since, $idle $(($(sent "$idle") - idle_before))"
    [[ $(sha256sum <"$scratch/file") == "$expected "* ]] || {
        echo "the file differs"
        return 1
    }
    (($(sent "$active") - active_before > 1000 && $(sent "$idle") - idle_before < 100))
}

# Whether the server's frames are where they should be, and its connections ended in order.
counters() {
    vm_guest 'kill -USR1 $(pidof tidegate); sleep 1; cat /tmp/out /tmp/err
        grep -q "^tcp_timed_out 0$" /tmp/out && grep -q "^tcp_reset_by_peer 0$" /tmp/out || exit 1
        grep -q "bond0: what is for nic0 leaves by nic1" /tmp/err'
}

scratch=$(mktemp -d)
trap 'vm_down; rm -rf "$scratch"' EXIT
mkdir -p "$VM_DIR"
vm_fetch_qemu
release=$(vm_kernel_release "${KERNEL:-trixie-backports}")
vm_fetch_kernel "$release"
vm_machine_image "$release" "$scratch/image" "$tidegate"
vm_up "$release" "$scratch/image" "2x${NIC:-virtio}"
echo "$release, two ${NIC:-virtio}"
# Without these there is nothing to look at.
check "a bond of two slaves" make_bond
((failed)) || check "is served by both" start
((!failed)) || exit 1
check "the active slave is set down" download "ip link set dev nic0 down" nic1 nic0
check "it comes back and is the active one again" download "ip link set dev nic0 up" nic0 nic1
check "the other is made the active one" download \
    "echo >/sys/class/net/bond0/bonding/primary; echo nic1 >/sys/class/net/bond0/bonding/active_slave" nic1 nic0
check "connections ended in order" counters
exit "$failed"
