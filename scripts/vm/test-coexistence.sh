#!/usr/bin/env bash
# Runs tidegate beside Debian's xdp-filter on a veth pair in virtual machines, with the kernel and the xdp-tools of a
# suite: some kernels, and so some hosts, do not let programs replace functions of others.
#
#   scripts/vm/test-coexistence.sh TIDEGATE XDP_PASS_OBJECT
#
# Prints a line for each check; exit code 1 if one fails. `make test-coexistence` calls this.
#
# Settings (environment):
#   SUITES      suites of Debian (default: bookworm trixie trixie-backports)
#   VM_DIR      where packages are kept (default: ~/.cache/tidegate-vm)
#   VM_SECONDS  the time a machine has for all of it (default: 600)
set -euo pipefail

# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly limit=${VM_SECONDS:-600}

if (($# != 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi

# Makes the image $1 with the tools of suite $2 and the modules of kernel $3.
make_image() {
    local image=$1 suite=$2 release=$3 root=$scratch/$3 elf=libelf1 pcap=libpcap0.8
    if [[ $suite != bookworm ]]; then
        elf=libelf1t64 pcap=libpcap0.8t64
    fi
    if [[ ! -d $VM_DIR/xdp-tools/$suite ]]; then
        vm_update_lists guest
        vm_unpack "xdp-tools/$suite" guest {xdp-tools,libxdp1,libbpf1,"$elf","$pcap",libc6,zlib1g,libzstd1}/"$suite"
    fi
    vm_add_programs "$root" "$tidegate" "$(command -v ip)" "$(command -v ethtool)" "$(command -v curl)"
    cp "$xdp_pass" "$root/xdp-pass.o"
    cp "$(dirname "${BASH_SOURCE[0]}")/coexistence.sh" "$root/"
    # Programs of another Debian come with their own C library.
    cp -a "$VM_DIR/xdp-tools/$suite" "$root/tools"
    rm -rf "$root"/tools/usr/share
    mkdir -p "$root/usr/lib/x86_64-linux-gnu"
    cp -a "$root/tools/usr/lib/x86_64-linux-gnu/bpf" "$root/usr/lib/x86_64-linux-gnu/"
    vm_add_modules "$root" "$release" veth
    vm_initramfs "$root" "$image" "sh /coexistence.sh"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tidegate=$1
xdp_pass=$2
mkdir -p "$VM_DIR"
vm_fetch_qemu
failed=()
for suite in ${SUITES:-bookworm trixie trixie-backports}; do
    # Backports have no xdp-tools of their own.
    tools=${suite%-backports}
    release=$(vm_kernel_release "$suite")
    vm_fetch_kernel "$release"
    vm_fetch_modules "$release"
    make_image "$scratch/image" "$tools" "$release"
    echo "== $suite: Linux $release, $(basename "$VM_DIR/debs/xdp-tools/$tools"/xdp-tools_*)"
    code=0
    vm_run "$release" "$scratch/image" "$limit" || code=$?
    ((code == 0)) || failed+=("$suite")
done
if ((${#failed[@]} > 0)); then
    echo "test-coexistence: FAILED in ${failed[*]}" >&2
    exit 1
fi
echo "test-coexistence: passed"
