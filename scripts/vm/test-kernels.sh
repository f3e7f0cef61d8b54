#!/usr/bin/env bash
# Boots kernels in virtual machines and has each take every XDP program of the project.
#
#   scripts/vm/test-kernels.sh LOADER OBJECT...
#
# LOADER is the example `load_objects` of tidegate-runtime. Prints a line for each kernel, object and program; exit code 1 if
# a kernel refused one, no kernel was tested, or one that KERNELS names was skipped. `make test-kernels` calls this.
#
# Settings (environment):
#   KERNELS       releases (6.12.117+deb13-amd64), and series (6.16) and suites (bookworm, trixie-backports) that stand for
#                 their newest
#   VM_DIR        where packages are kept, 100 MB a kernel (default: ~/.cache/tidegate-vm)
#   VM_MEMORY     memory of a machine in MiB (default: 768)
#   VM_SECONDS    the time a kernel has to boot and take the programs (default: 180)
#   VERIFIER_LOG  1: print the verifier's log of each refusal
set -euo pipefail

# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly named=${KERNELS:-}

# The oldest that takes the programs, Debian 11's; the oldest supported, Debian 12's; Debian 13's; what came between it and
# the newest; the newest.
KERNELS=${KERNELS:-bookworm trixie 6.16 6.18 7.0 7.1 7.2 trixie-backports}

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
vm_initramfs "$scratch/root" "$scratch/image" "cd /objects && ${VERIFIER_LOG:+VERIFIER_LOG=1} $(basename "$loader") *.o"

tested=()
failed=()
skipped=()
for kernel in $KERNELS; do
    code=0
    release=$(vm_kernel_release "$kernel") || code=$?
    if ((code == vm_no_kernel)); then
        echo "$kernel: SKIPPED: the archive has no kernel of this name any more, and none was fetched before"
        skipped+=("$kernel")
        continue
    fi
    ((code == 0)) || exit 1
    # Names can stand for the same.
    [[ " ${tested[*]} " != *" $release "* ]] || continue
    vm_fetch_kernel "$release"
    tested+=("$release")
    code=0
    vm_run "$release" "$scratch/image" "$limit" || code=$?
    if ((code == 125)); then
        echo "$release: FAILED: it did not boot, or not within $limit s"
    fi
    ((code == 0)) || failed+=("$release")
done
note=
if ((${#skipped[@]} > 0)); then
    note="; SKIPPED: ${skipped[*]}"
fi
if ((${#failed[@]} > 0)); then
    echo "test-kernels: FAILED on ${failed[*]}, of ${#tested[@]} kernels$note" >&2
    exit 1
fi
if ((${#tested[@]} == 0)); then
    echo "test-kernels: FAILED: no kernel was tested$note" >&2
    exit 1
fi
if [[ -n $named && -n $note ]]; then
    echo "test-kernels: FAILED: passed on ${#tested[@]} kernels, but not all that KERNELS names were tested$note" >&2
    exit 1
fi
echo "test-kernels: passed on ${#tested[@]} kernels$note"
