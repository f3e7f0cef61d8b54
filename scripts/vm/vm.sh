#!/usr/bin/env bash
# A virtual machine with an emulated NIC and tidegate, to try things by hand.
#
#   scripts/vm/vm.sh up NIC [QUEUES]     boot; NIC: igb virtio virtio-zc e1000e vmxnet3, or 2xNIC for two at one cable
#   scripts/vm/vm.sh guest COMMAND...    run a command in the guest; its exit code is this one's
#   scripts/vm/vm.sh client COMMAND...   run a command on the client's side, a network namespace
#   scripts/vm/vm.sh log                 print the guest's kernel messages
#   scripts/vm/vm.sh down                end the machine and remove the namespace
#
# Guest: nic0 (and nic1), 198.18.0.1 and 2001:2::1, files in /www; `load bonding` loads a module. Client: vm0, 198.18.0.2 and
# 2001:2::2. For example:
#
#   scripts/vm/vm.sh up igb
#   scripts/vm/vm.sh guest 'tidegate serve --iface nic0 --root /www --listen http=198.18.0.1:80 </dev/null >/tmp/out 2>&1 &'
#   scripts/vm/vm.sh client curl -sS http://198.18.0.1/100000.bin | sha256sum
#
# Settings (environment):
#   KERNEL        release, series or suite, as in KERNELS of test-kernels.sh (default: trixie-backports)
#   VM_PROGRAMS   programs of the host to put into the guest (default: target/release/tidegate)
#   VM_PACKAGES   Debian packages to unpack into the guest, NAME/SUITE (default: none)
#   VM_DIR, VM_NS folder of packages, and name of the namespace (defaults: ~/.cache/tidegate-vm, tg-vm)
#   VM_MEMORY     memory of the machine in MiB (default: 768)
set -euo pipefail

VM_PROGRAMS=${VM_PROGRAMS:-target/release/tidegate}
# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/vm/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"

usage() {
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
}

(($# > 0)) || usage
verb=$1
shift
case $verb in
up)
    (($# > 0)) || usage
    mkdir -p "$VM_DIR"
    vm_fetch_qemu
    release=$(vm_kernel_release "${KERNEL:-trixie-backports}")
    vm_fetch_kernel "$release"
    image=$(mktemp "$VM_DIR/image.XXXXXX")
    trap 'rm -f "$image" "$image.sha256"' EXIT
    vm_machine_image "$release" "$image"
    vm_up "$release" "$image" "$@" || {
        vm_down
        exit 1
    }
    ;;
guest) vm_guest "$@" ;;
client) vm_client "$@" ;;
log) cat "$vm_state/console" ;;
down) vm_down ;;
*) usage ;;
esac
