#!/usr/bin/env bash
# Installs a Debian package in a virtual machine with Debian and systemd, has its service serve, fail, hang, be upgraded to a
# second package, and be purged.
#
#   scripts/vm/test-deb.sh DEB NEWER_DEB
#
# Prints a line for each check. Exit code 1 if one failed. `make test-deb` calls this. Needs root, debootstrap and a network.
#
# Settings (environment):
#   SUITE         Debian's release in the machine (default: bookworm)
#   KERNEL        as in vm.sh (default: trixie-backports)
#   VM_DIR, VM_SECONDS   folder of packages, and limit of the machine's run (defaults: ~/.cache/tidegate-vm, 1800)
set -euo pipefail

VM_MEMORY=${VM_MEMORY:-1024}
# shellcheck source=scripts/vm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if (($# != 2)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
deb=$(readlink -f "$1") newer=$(readlink -f "$2")
[[ -f $deb && -f $newer ]] || vm_die "$1 or $2 is missing: make deb"
suite=${SUITE:-bookworm}
packages=systemd,systemd-sysv,init-system-helpers,kmod,iproute2,ethtool,curl,procps,libelf1,zlib1g

# Made once for a release and a list of packages, and kept.
base_tar=$VM_DIR/deb-$suite-$(sha256sum <<<"$packages" | cut -c1-12).tar

# Makes the root file system, if there is none with these packages.
base() {
    local tree mirror
    [[ ! -f $base_tar ]] || return 0
    command -v debootstrap >/dev/null || vm_die "debootstrap is missing: apt-get install debootstrap"
    mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' |
        awk '$2 !~ /security|updates/ && /debian/ && !site { site = $1 } END { print site }')
    tree=$(mktemp -d "$VM_DIR/tree.XXXXXX")
    debootstrap --variant=minbase --include="$packages" "$suite" "$tree" "${mirror:-http://deb.debian.org/debian}" \
        >"$VM_DIR/debootstrap.log" 2>&1 || {
        tail -5 "$VM_DIR/debootstrap.log" >&2
        rm -rf "$tree"
        vm_die "debootstrap failed"
    }
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}/*
    tar -C "$tree" -cf "$base_tar.new" .
    mv "$base_tar.new" "$base_tar"
    rm -rf "$tree"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$VM_DIR"
base
vm_fetch_qemu
release=$(vm_kernel_release "${KERNEL:-trixie-backports}")
vm_fetch_kernel "$release"
vm_fetch_modules "$release"

# The machine's disk: Debian, both packages, a module for its one interface, and a service that runs the checks.
tree=$scratch/tree
mkdir "$tree"
tar -C "$tree" -xf "$base_tar"
install -m 644 "$deb" "$tree/root/first.deb"
install -m 644 "$newer" "$tree/root/newer.deb"
install -m 755 "$(dirname "${BASH_SOURCE[0]}")/deb-checks.sh" "$tree/root/checks.sh"
install -m 644 "$(dirname "${BASH_SOURCE[0]}")/../check.sh" "$tree/root/check.sh"
vm_add_modules "$tree/root" "$release" veth
cat >"$tree/etc/systemd/system/checks.service" <<-'END'
	[Unit]
	After=basic.target
	[Service]
	Type=oneshot
	ExecStart=/root/checks.sh
	ExecStopPost=/usr/bin/systemctl poweroff --force --force
	StandardOutput=tty
	StandardError=tty
	TTYPath=/dev/ttyS0
END
mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
ln -s /etc/systemd/system/checks.service "$tree/etc/systemd/system/multi-user.target.wants/checks.service"
mke2fs -q -t ext4 -d "$tree" "$scratch/disk" 1500M

# What mounts it.
first=$scratch/first
mkdir -p "$first"/{bin,mnt,dev}
cp "$VM_DIR/guest/bin/busybox" "$first/bin/busybox"
vm_add_modules "$first" "$release" virtio_pci virtio_blk ext4
cat >"$first/init" <<-'END'
	#!/bin/busybox sh
	/bin/busybox --install -s /bin
	export PATH=/bin
	mount -t devtmpfs dev /dev
	for module in $(cat /modules/virtio_pci.order /modules/virtio_blk.order /modules/ext4.order); do
	    insmod "/modules/$module.ko" 2>/dev/null
	done
	mount -t ext4 /dev/vda /mnt
	exec switch_root /mnt /lib/systemd/systemd
END
chmod +x "$first/init"
(cd "$first" && find . | bin/busybox cpio -o -H newc 2>/dev/null) >"$scratch/initramfs"

kernel=$(find "$VM_DIR/kernel/$release/" -name 'vmlinuz*' | head -1)
echo "$suite, $release"
VM_DIR=$VM_DIR VM_MEMORY=$VM_MEMORY timeout --foreground "${VM_SECONDS:-1800}" bash -c '
    source "$1"; shift; vm_qemu "$@"' - "$(dirname "${BASH_SOURCE[0]}")/lib.sh" -smp 2 -kernel "$kernel" \
    -initrd "$scratch/initramfs" -drive "file=$scratch/disk,format=raw,if=virtio,cache=unsafe" \
    -append "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off systemd.show_status=no" \
    -serial stdio </dev/null >"$scratch/output" 2>&1 || true
tr -d '\r' <"$scratch/output" | grep -aE '^(ok  |FAIL|  +\||vm: )' | grep -av '^vm: ' || true
grep -aq '^vm: exit code 0' "$scratch/output" || {
    grep -aq '^vm: exit code' "$scratch/output" || {
        echo "FAIL   the machine did not come to the end of the checks"
        tail -25 "$scratch/output"
    }
    exit 1
}
