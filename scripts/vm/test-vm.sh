#!/usr/bin/env bash
# Boots kernels in virtual machines with emulated NICs, and has tidegate serve there: real drivers, with all they do otherwise.
#
#   scripts/vm/test-vm.sh TIDEGATE TIDEGATE_BENCH
#
# Prints a line for each kernel, NIC and check: ok, FAIL, `known` for what a driver or kernel is known to do wrong (known_fault
# below has each with its reason), FIXED for such a one that passes nevertheless, or `-` for what does not exist there. At the
# end there is a table. Exit code 1 if anything failed or was fixed. `make test-vm` calls this.
#
# Settings (environment):
#   KERNELS       as in test-kernels.sh (default: bookworm trixie trixie-backports)
#   NICS          igb, virtio, virtio-zc (virtio_net that can do zero-copy), e1000e, vmxnet3 (default: all)
#   CHECKS        checks after `boots` and `starts` (default: all). jumbo, cookies and killed go together
#   QUEUES        receive queues of those that have several, and CPUs (default: 2)
#   VM_DIR        where packages are kept, 200 MB a kernel (default: ~/.cache/tidegate-vm)
#   VM_MEMORY     memory of a machine in MiB (default: 1024)
#   VM_SECONDS    the time a kernel has to boot (default: 180)
set -euo pipefail

VM_MEMORY=${VM_MEMORY:-1024}
VM_NS=${VM_NS:-tg-test-vm}
# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/vm/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
# shellcheck source=scripts/vm/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/checks.sh"

KERNELS=${KERNELS:-bookworm trixie trixie-backports}
NICS=${NICS:-igb virtio virtio-zc e1000e vmxnet3}

if (($# != 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
[[ $EUID == 0 ]] || vm_die "this needs root, for a network namespace and /dev/net/tun"
tidegate=$(readlink -f "$1")
bench=$(readlink -f "$2")
[[ -x $tidegate && -x $bench && ${tidegate##*/} == tidegate ]] || vm_die "$1 or $2 is no program, or not tidegate"

# Whether the kernel under test is $1 or later.
at_least() {
    [[ $(printf '%s\n' "$1" "$release" | sort -V | head -1) == "$1" ]]
}

# Prints the reason for which check $1 fails with this NIC and kernel, if it is known to.
known_fault() {
    case $nic:$1 in
    vmxnet3:survives)
        # Older ones have no XDP of their own, and then it is the kernel that runs the program.
        if at_least 6.6; then
            echo "after down and up the driver does not run the program until it is attached anew, and the kernel answers with RST"
        fi
        ;;
    esac
}

# Runs check $1 by the function check_$1, and keeps what came out. The function's exit code 77 stands for what this driver does
# not have; then the last line it prints says so.
run_check() {
    local name=$1 code=0 reason outcome note=
    "check_$name" >"$scratch/output" 2>&1 || code=$?
    reason=$(known_fault "$name")
    case $code in
    0) outcome=ok ;;
    77) outcome=- note=$(tail -1 "$scratch/output") ;;
    *) outcome=FAIL ;;
    esac
    if [[ -n $reason && $outcome == FAIL ]]; then
        outcome=known note=$reason
    elif [[ -n $reason && $outcome == ok ]]; then
        outcome=FIXED note="expected to fail: $reason"
    fi
    outcomes[$cell $name]=$outcome
    printf '%-6s %s %s%s\n' "$outcome" "$cell" "$name" "${note:+: $note}"
    case $outcome in
    FAIL)
        unexpected=$((unexpected + 1))
        sed 's/^/       | /' "$scratch/output" | cut -c1-220 | tail -25
        ;;
    FIXED) unexpected=$((unexpected + 1)) ;;
    esac
    [[ $outcome != FAIL ]]
}

# Everything about one kernel and NIC.
run_cell() {
    local name started=$SECONDS
    cell="$release $nic"
    cells+=("$cell")
    case $nic in
    e1000e) queues=1 ;;
    *) queues=${QUEUES:-2} ;;
    esac
    # Without a machine or a server there is nothing to look at.
    if run_check boots && run_check starts; then
        for name in ${CHECKS:-"${checks[@]:2}"}; do
            run_check "$name" || true
        done
    fi
    vm_down
    echo "       $cell: $((SECONDS - started)) s"
}

# A row for each check, a column for each kernel and NIC.
print_table() {
    local name column
    echo
    printf '%-12s' ""
    for column in "${!cells[@]}"; do printf ' %-6s' "[$((column + 1))]"; done
    echo
    for name in "${checks[@]}"; do
        printf '%-12s' "$name"
        for column in "${cells[@]}"; do printf ' %-6s' "${outcomes[$column $name]:-}"; done
        echo
    done
    echo
    for column in "${!cells[@]}"; do echo "[$((column + 1))] ${cells[$column]}"; done
}

scratch=$(mktemp -d)
trap 'vm_down; rm -rf "$scratch"' EXIT
mkdir -p "$VM_DIR"
vm_fetch_qemu
declare -A outcomes=()
cells=()
unexpected=0
for kernel in $KERNELS; do
    release=$(vm_kernel_release "$kernel") || vm_die "there is no kernel $kernel (any more)"
    vm_fetch_kernel "$release"
    vm_machine_image "$release" "$scratch/image" "$tidegate"
    for nic in $NICS; do
        run_cell
    done
done
print_table
if ((unexpected > 0)); then
    echo "test-vm: FAILED: $unexpected of the above were not expected" >&2
    exit 1
fi
echo "test-vm: passed"
