#!/usr/bin/env bash
# Boots kernels in virtual machines and has each take every XDP program of the project.
#
#   scripts/vm/test-kernels.sh LOADER OBJECT...
#
# LOADER is the example `load_objects` of tidegate-runtime. Prints a line for each kernel, object and program; exit code 1 if
# a kernel refused one. `make test-kernels` calls this.
#
# Settings (environment):
#   KERNELS       releases (6.12.117+deb13-amd64), or suites that stand for their newest (bookworm, trixie, trixie-backports)
#   VM_DIR        where packages are kept, 100 MB a kernel (default: ~/.cache/tidegate-vm)
#   VERIFIER_LOG  1: print the verifier's log of each refusal
set -euo pipefail

# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The oldest supported, Debian 12's (the same at present); Debian 13's; three between them and the newest; the newest.
KERNELS=${KERNELS:-bookworm trixie 6.16.12+deb13-amd64 6.18.15+deb13-amd64 7.0.13+deb13-amd64 7.2.12+deb13-amd64 trixie-backports}

# The verifier takes some seconds without KVM, and more on a busy machine.
readonly limit=${VM_SECONDS:-180}

if (($# < 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$VM_DIR"
vm_fetch_qemu
loader=$1
shift
mkdir -p "$scratch/root/objects"
vm_add_programs "$scratch/root" "$loader"
cp -- "$@" "$scratch/root/objects/"
vm_initramfs "$scratch/root" "$scratch/image" "export VERIFIER_LOG=${VERIFIER_LOG:-}; [ -n \"\$VERIFIER_LOG\" ] || unset VERIFIER_LOG
    cd /objects && $(basename "$loader") *.o"

failed=()
for kernel in $KERNELS; do
    release=$(vm_kernel_release "$kernel")
    vm_fetch_kernel "$release"
    code=0
    vm_run "$release" "$scratch/image" "$limit" || code=$?
    if ((code == 125)); then
        echo "$release: FAILED: it did not boot, or not within $limit s"
    fi
    ((code == 0)) || failed+=("$release")
done
if ((${#failed[@]} > 0)); then
    echo "test-kernels: FAILED on ${failed[*]}" >&2
    exit 1
fi
echo "test-kernels: passed"
