# shellcheck shell=bash
# Virtual machines by QEMU without KVM, in which Debian's kernels run. Sourced by what is beside it.
#
# Nothing is installed on the host: packages are downloaded by an apt with lists of its own, from the mirror that the host's
# apt uses, kept in $VM_DIR/debs, and unpacked. Needs Debian or a derivative for amd64.

VM_DIR=${VM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-vm}
VM_MEMORY=${VM_MEMORY:-768}
readonly vm_installed_qemu=/usr/bin/qemu-system-x86_64
# Exit code for a kernel that is not to be had (any more).
readonly vm_no_kernel=3
readonly vm_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

vm_die() {
    echo "vm: $*" >&2
    exit 1
}

# ---- packages --------------------------------------------------------------------------------------------------------

# Three sets of package lists: "host" for programs that run here, without what is installed, "guest" for all else, and "old"
# for a release that mirrors will drop.
vm_suites() {
    local codename
    case $1 in
    host)
        codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
        echo "$codename $codename-backports"
        ;;
    guest) echo bookworm bookworm-security trixie trixie-security trixie-backports ;;
    old) echo bullseye ;;
    esac
}

# Runs apt's program $1 with set of lists $2.
vm_apt() {
    local program=$1 set=$2
    shift 2
    APT_CONFIG=$VM_DIR/apt/$set/apt.conf "$program" "$@"
}

# Fetches the lists of set $1, once a day. Without a network older ones do; without those either, this says so and fails.
vm_update_lists() {
    local set=$1 dir=$VM_DIR/apt/$1 status mirror security suite
    [[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] || vm_die "this needs Debian for amd64"
    [[ -f $vm_keyring ]] || vm_die "$vm_keyring is missing: apt-get install debian-archive-keyring"
    if [[ -n $(find "$dir/updated" -mmin -1440 2>/dev/null) ]]; then
        return
    fi
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    status=/var/lib/dpkg/status
    if [[ $set != host ]]; then
        status=$dir/no-status
        : >"$status"
    fi
    mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' |
        awk '$2 !~ /security|updates/ && /debian/ && !site { site = $1 } END { print site }')
    mirror=${mirror:-http://deb.debian.org/debian}
    security=$(apt-get indextargets --format '$(SITE) $(CODENAME)' |
        awk '$2 ~ /security/ && !site { site = $1 } END { print site }')
    security=${security:-http://deb.debian.org/debian-security}
    for suite in $(vm_suites "$set"); do
        case $suite in
        *-security) echo "deb [signed-by=$vm_keyring] $security $suite main" ;;
        *) echo "deb [signed-by=$vm_keyring] $mirror $suite main" ;;
        esac
    done >"$dir/sources.list"
    {
        cat <<-END
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "/dev/null";
			Dir::Etc::sourcelist "$dir/sources.list";
			Dir::Etc::sourceparts "/dev/null";
			Dir::State::lists "$dir/lists";
			Dir::State::status "$status";
			Dir::Cache "$dir/cache";
			APT::Sandbox::User "root";
			Acquire::Languages "none";
			Acquire::Retries "2";
		END
        # The host's proxy or transport settings are kept.
        apt-config dump Acquire | grep -E '^Acquire::(http|https|Proxy)' || true
    } >"$dir/apt.conf"
    if vm_apt apt-get "$set" update -qq --error-on=any >"$dir/log" 2>&1; then
        touch "$dir/updated"
    elif [[ -e $dir/updated ]]; then
        echo "vm: WARNING: no network, or no mirror at $mirror; package lists of $(date -r "$dir/updated" +%F) are used" >&2
    else
        tail -5 "$dir/log" >&2
        vm_die "no package lists from $mirror: is there a network? What was fetched once is kept in $VM_DIR"
    fi
}

# Downloads packages $3... of set $2 into $VM_DIR/debs/$1, and unpacks them into $VM_DIR/$1. Downloaded ones are taken as
# they are.
vm_unpack() {
    local name=$1 set=$2 debs=$VM_DIR/debs/$1 deb
    shift 2
    if [[ ! -d $debs ]]; then
        rm -rf "$debs.new"
        mkdir -p "$debs.new"
        (cd "$debs.new" && vm_apt apt-get "$set" download -qq "$@") >&2 ||
            vm_die "cannot download $*: is there a network? What was fetched once is kept in $VM_DIR"
        mv "$debs.new" "$debs"
    fi
    # What is beside the kernels counts as one, so half of one must not be there.
    rm -rf "${VM_DIR:?}/new/$name"
    mkdir -p "$VM_DIR/new/$name" "$(dirname "$VM_DIR/$name")"
    for deb in "$debs"/*.deb; do
        dpkg -x "$deb" "$VM_DIR/new/$name"
    done
    rm -rf "${VM_DIR:?}/$name"
    mv "$VM_DIR/new/$name" "$VM_DIR/$name"
}

# Fetches QEMU, with the libraries that the host does not have, unless it is installed; and a static busybox.
vm_fetch_qemu() {
    local packages backports
    if [[ ! -d $VM_DIR/qemu && ! -x $vm_installed_qemu ]]; then
        vm_update_lists host
        backports=$(vm_suites host)
        # QEMU 8 or later knows igb; Debian 12's own is 7.2.
        mapfile -t packages < <(vm_apt apt-get host install -s --no-install-recommends -t "${backports##* }" \
            qemu-system-x86 | awk '/^Inst/ { print $2 }')
        ((${#packages[@]} > 0)) || vm_die "no package qemu-system-x86"
        vm_unpack qemu host -t "${backports##* }" "${packages[@]}"
    fi
    if [[ ! -d $VM_DIR/guest ]]; then
        vm_update_lists guest
        vm_unpack guest guest busybox-static/bookworm
    fi
}

# Prints the release of the kernel that $1 stands for: a release itself, or the newest of a series (6.16) or of a suite.
# Returns $vm_no_kernel when there is none of the series, or of the release that mirrors will drop (any more).
vm_kernel_release() {
    local set=guest suite releases release=
    case $1 in
    [0-9]*-*)
        echo "$1"
        return
        ;;
    [0-9]*)
        releases=$(vm_kernel_releases) || exit 1
        grep "^${1//./\\.}\." <<<"$releases" | tail -1 | grep . || return "$vm_no_kernel"
        return
        ;;
    esac
    [[ $1 != "$(vm_suites old)" ]] || set=old
    if ! (vm_update_lists "$set"); then
        [[ $set != old ]] || return "$vm_no_kernel"
        exit 1
    fi
    for suite in "$1-security" "$1"; do
        release=$(vm_apt apt-cache "$set" depends "linux-image-amd64/$suite" 2>/dev/null |
            sed -n 's/.*Depends: linux-image-\([0-9].*\)/\1/p' | head -1)
        [[ -z $release ]] || break
    done
    [[ -n $release || $set != old ]] || return "$vm_no_kernel"
    [[ -n $release ]] || vm_die "there is no kernel of suite $1"
    echo "$release"
}

# Prints the releases that the archive has or that were fetched before, the oldest first.
vm_kernel_releases() {
    vm_update_lists guest
    {
        ls "$VM_DIR/kernel" 2>/dev/null || true
        vm_archived_releases
    } | sort -Vu
}

vm_archived_releases() {
    vm_apt apt-cache guest search --names-only '^linux-(image|binary)-[0-9].*-amd64$' |
        sed -nE '/-(rt|cloud)-/d; s/^linux-[a-z]*-([0-9][^ ]*amd64) .*/\1/p'
}

# Fetches kernel $1, unless it is there. From 7.0 on linux-binary has the kernel itself; in the archive only that is left
# of old ones, and enough to boot.
vm_fetch_kernel() {
    local release=$1 set=guest package packages=()
    if [[ -n $(find "$VM_DIR/kernel/$release/" -name 'vmlinuz*' 2>/dev/null) ]]; then
        return
    fi
    [[ $release != 5.10.* ]] || set=old
    vm_update_lists "$set"
    for package in "linux-binary-$release" "linux-image-$release"; do
        if vm_apt apt-cache "$set" show "$package" >/dev/null 2>&1; then
            packages=("$package")
            break
        fi
    done
    ((${#packages[@]} > 0)) || {
        echo "vm: the archive has no kernel $release (any more); it has:" >&2
        vm_kernel_releases | sed 's/^/    /' >&2
        exit 1
    }
    vm_unpack "kernel/$release" "$set" "${packages[@]}"
    [[ -n $(find "$VM_DIR/kernel/$release/" -name 'vmlinuz*') ]] || vm_die "package ${packages[*]} holds no kernel"
}

# Fetches the modules of kernel $1, unless they are there. From 7.2 on they are in a package of their own.
vm_fetch_modules() {
    local release=$1 set=guest package
    if [[ -n $(vm_modules_of "$release") ]]; then
        return
    fi
    [[ $release != 5.10.* ]] || set=old
    vm_update_lists "$set"
    for package in "linux-modules-$release" "linux-image-$release"; do
        if vm_apt apt-cache "$set" show "$package" >/dev/null 2>&1; then
            vm_unpack "modules/$release" "$set" "$package"
            break
        fi
    done
    [[ -n $(vm_modules_of "$release") ]] || vm_die "the archive has no modules of kernel $release (any more)"
}

# Prints the folder with the modules of kernel $1, if they are there.
vm_modules_of() {
    find "$VM_DIR/kernel/$1/" "$VM_DIR/modules/$1/" -path "*/modules/$1/kernel" -print -quit 2>/dev/null || true
}

# Fetches package $1 (NAME or NAME/SUITE) into $VM_DIR/package/NAME, without what it depends on, unless it is there.
vm_fetch_package() {
    if [[ ! -d $VM_DIR/package/${1%%/*} ]]; then
        vm_update_lists guest
        vm_unpack "package/${1%%/*}" guest "$1"
    fi
}

# ---- the guest -------------------------------------------------------------------------------------------------------

# Copies programs and the libraries they need into the root file system $1.
vm_add_programs() {
    local root=$1 program library
    shift
    for program; do
        install -D "$(readlink -f "$program")" "$root/usr/sbin/$(basename "$program")"
        while read -r library; do
            [[ -e $root$library ]] || install -D "$(readlink -f "$library")" "$root$library"
        done < <(ldd "$program" 2>/dev/null | grep -o '/[^ ]*')
    done
}

# Copies modules $3... of kernel $2, and those they depend on, into the root file system $1. modules/NAME.order lists a
# module and what it needs in the order in which they load. What the kernel has built in, or does not have, is empty there.
vm_add_modules() {
    local root=$1 release=$2 modules name file depend depends
    shift 2
    modules=$(vm_modules_of "$release")
    mkdir -p "$root/modules"
    for name; do
        name=${name//-/_}
        [[ ! -e $root/modules/$name.order ]] || continue
        file=$(find "$modules" \( -name "$name.ko*" -o -name "${name//_/-}.ko*" \) -print -quit)
        if [[ -z $file ]]; then
            : >"$root/modules/$name.order"
            continue
        fi
        case $file in
        *.xz) xz -dc "$file" >"$root/modules/$name.ko" ;;
        *.zst) zstd -qdc "$file" >"$root/modules/$name.ko" ;;
        *) cp "$file" "$root/modules/$name.ko" ;;
        esac
        depends=$(tr '\0' '\n' <"$root/modules/$name.ko" | sed -n 's/^depends=//p' | tr ',-' ' _')
        # shellcheck disable=SC2086
        vm_add_modules "$root" "$release" $depends
        {
            for depend in $depends; do cat "$root/modules/$depend.order"; done
            echo "$name"
        } | awk '!seen[$0]++' >"$root/modules/$name.order"
    done
}

# Makes an initramfs $2 of the root file system $1, with busybox and an /init that runs $3 in sh and then ends the machine.
# The last line it prints is "vm: exit code N".
vm_initramfs() {
    local root=$1 image=$2 command=$3
    mkdir -p "$root"/{bin,proc,sys,dev,tmp}
    cp "$VM_DIR/guest/bin/busybox" "$root/bin/busybox"
    cat >"$root/init" <<-END
		#!/bin/busybox sh
		/bin/busybox --install -s /bin
		export PATH=/usr/sbin:/bin HOME=/tmp
		mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
		ulimit -l unlimited
		echo; echo "vm: begin"
		( $command )
		echo "vm: exit code \$?"
		poweroff -f
	END
    chmod +x "$root/init"
    (cd "$root" && find . | bin/busybox cpio -o -H newc 2>/dev/null) >"$image"
}

# Runs QEMU with what follows.
vm_qemu() {
    local program=("$vm_installed_qemu")
    if [[ -d $VM_DIR/qemu ]]; then
        export LD_LIBRARY_PATH=$VM_DIR/qemu/usr/lib/x86_64-linux-gnu:$VM_DIR/qemu/lib/x86_64-linux-gnu
        program=("$VM_DIR/qemu/usr/bin/qemu-system-x86_64"
            -L "$VM_DIR/qemu/usr/share/qemu" -L "$VM_DIR/qemu/usr/share/seabios")
    fi
    exec "${program[@]}" -machine q35,accel=tcg -cpu max -m "$VM_MEMORY" -nodefaults -no-reboot -display none "$@"
}

# Boots kernel $1 with initramfs $2 and without any device, for at most $3 seconds. Prints what the command of the initramfs
# prints; its exit code is this function's, and 125 stands for a machine that did not come so far.
vm_run() {
    local release=$1 image=$2 seconds=$3 kernel output
    kernel=$(find "$VM_DIR/kernel/$release/" -name 'vmlinuz*' | head -1)
    output=$(VM_DIR=$VM_DIR VM_MEMORY=$VM_MEMORY timeout --foreground "$seconds" bash -c '
        source "$1"; shift; vm_qemu "$@"' - "${BASH_SOURCE[0]}" -smp 1 -kernel "$kernel" -initrd "$image" \
        -append "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off" -serial stdio </dev/null 2>&1 |
        tr -d '\r')
    case $output in
    *"vm: begin"*"vm: exit code "[0-9]*)
        sed -n '/^vm: begin$/,/^vm: exit code/p' <<<"$output" | grep -v '^vm: '
        output=${output##*vm: exit code }
        return "${output%%[!0-9]*}"
        ;;
    esac
    tail -15 <<<"$output"
    return 125
}
