# shellcheck shell=bash
# A machine with an emulated NIC, and its client's side: a network namespace in which the NIC's cable ends. Sourced after
# lib.sh. Needs root and /dev/net/tun. No packet leaves the namespace.
#
# Guest: nic0 has 198.18.0.1/24 and 2001:2::1/64. Client: vm0 has 198.18.0.2 and 2001:2::2. A second NIC of the guest, ctl0,
# is for commands.

VM_NS=${VM_NS:-tg-vm}
# Programs of the host that are put into the guest besides ip and ethtool.
VM_PROGRAMS=${VM_PROGRAMS:-}
readonly vm_mac=52:54:00:12:00:0
readonly vm_control_mac=52:54:00:12:00:fe
# Packages that a guest may want and a host need not have: NAME/SUITE, unpacked into the guest.
VM_PACKAGES=${VM_PACKAGES:-}
# Drivers are loaded at the start, the rest by the guest's command `load`.
readonly vm_drivers=(virtio_pci virtio_net igb e1000e vmxnet3)
readonly vm_modules=(8021q bonding veth dummy ip_vs ip_vs_rr ip_vs_sh ip_vs_mh ipip fou ip6_tunnel fou6)
# What the machine is known by while it runs.
readonly vm_state=$VM_DIR/machine.$VM_NS

# ---- the image -------------------------------------------------------------------------------------------------------

# Makes an initramfs $2 for kernel $1 with ip, ethtool, programs $3... and files to serve in /www; their checksums are in
# $2.sha256.
vm_machine_image() {
    local release=$1 image=$2 root size package
    shift 2
    root=$(mktemp -d "$VM_DIR/root.XXXXXX")
    vm_fetch_modules "$release"
    vm_add_modules "$root" "$release" "${vm_drivers[@]}" "${vm_modules[@]}"
    for package in $VM_PACKAGES; do
        vm_fetch_package "$package"
        cp -a "$VM_DIR/package/${package%%/*}/." "$root/"
    done
    # shellcheck disable=SC2086
    vm_add_programs "$root" "$(command -v ip)" "$(command -v ethtool)" "$@" $VM_PROGRAMS
    # Debian's ethtool is started through a link.
    [[ -e $root/usr/sbin/ethtool ]] || ln -s "$(basename "$(readlink -f "$(command -v ethtool)")")" "$root/usr/sbin/ethtool"
    mkdir -p "$root/www" "$root/run" "$root/etc"
    printf x >"$root/www/1.bin"
    # The same on every machine, and nothing in them repeats.
    for size in 100000 20000000; do
        openssl enc -aes-128-ctr -K "$(printf %032d 0)" -iv "$(printf %032d "$size")" -in /dev/zero 2>/dev/null |
            head -c "$size" >"$root/www/$size.bin" || true
    done
    (cd "$root/www" && sha256sum -- *.bin) >"$image.sha256"
    vm_guest_script >"$root/machine"
    vm_initramfs "$root" "$image" "sh /machine"
    rm -rf "$root"
}

# Prints the functions of the guest's shell.
vm_guest_functions() {
    cat <<-'END'
		ip() { /usr/sbin/ip "$@"; }
		load() {
		    for module in $(for name; do cat "/modules/$name.order"; done); do
		        [ -d "/sys/module/$module" ] || insmod "/modules/$module.ko" || echo "insmod $module failed"
		    done
		}
	END
}

vm_guest_script() {
    # busybox's shell prefers its own ip.
    vm_guest_functions
    echo "load ${vm_drivers[*]}"
    cat <<-'END'
		mkdir -p /sys/fs/bpf /dev/shm; mount -t bpf bpf /sys/fs/bpf
		mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
		ulimit -c 0
		for word in $(cat /proc/cmdline); do case $word in vm.*) export "vm_${word#vm.}" ;; esac; done
		sleep 0.2
		for device in /sys/class/net/*; do
		    name=${device##*/} address=$(cat "$device/address")
		    case $address in
		    "$vm_control") ip link set dev "$name" down; ip link set dev "$name" name ctl0 ;;
		    "$vm_mac"*)
		        ip link set dev "$name" down; ip link set dev "$name" name "nic$((${address#"$vm_mac"} - 1))" ;;
		    esac
		done
		for name in all default nic0; do echo 0 >"/proc/sys/net/ipv6/conf/$name/accept_dad"; done
		ip link set dev lo up
		ip address add 198.18.254.1/24 dev ctl0; ip link set dev ctl0 up
		ip address add 198.18.0.1/24 dev nic0; ip -6 address add 2001:2::1/64 dev nic0 nodad
		for device in /sys/class/net/nic*; do ip link set dev "${device##*/}" up; done
		for i in $(seq 100); do [ "$(cat /sys/class/net/nic0/carrier)" = 1 ] && break; sleep 0.1; done
		echo "machine: ready after $(cut -d' ' -f1 /proc/uptime) s"
		while :; do nc -ll -p 1000 -e /bin/sh; sleep 1; done
	END
}

# ---- running it ------------------------------------------------------------------------------------------------------

# Runs a command on the client's side.
vm_client() {
    ip netns exec "$VM_NS" "$@"
}

# Runs a command line in the guest; its exit code is this function's, and 125 stands for a guest that does not answer. What
# is to go on running must not keep standard output.
vm_guest() {
    local output code
    # Reads a command to the end before it is run.
    output=$(vm_client timeout "${VM_GUEST_SECONDS:-120}" bash -c '
        exec 3<>/dev/tcp/198.18.254.1/1000 || exit 1
        printf "%s\n(\n%s\n) </dev/null 2>&1\nprintf \"\\\\n__rc=%%s\" \$?\nexit\n" "$1" "$2" >&3
        cat <&3' - "$(vm_guest_functions)" "$*" 2>&1) || return 125
    case $output in
    *__rc=*) ;;
    *)
        printf '%s\n' "$output"
        return 125
        ;;
    esac
    code=${output##*__rc=}
    output=${output%$'\n'__rc=*}
    [[ -z $output ]] || printf '%s\n' "${output%$'\n'}"
    return "$code"
}

# The client's side: the namespace, with the ends of both cables, of which that of the NIC has $1 queues.
vm_make_client() {
    ip netns add "$VM_NS"
    vm_client ip link set dev lo up
    vm_client bash -c 'for name in all default; do echo 0 >/proc/sys/net/ipv6/conf/$name/accept_dad; done'
    # shellcheck disable=SC2046
    vm_client ip tuntap add dev vm0 mode tap $( (($1 == 1)) || echo multi_queue)
    vm_client ip tuntap add dev vmctl mode tap
    vm_client ip address add 198.18.0.2/24 dev vm0
    vm_client ip -6 address add 2001:2::2/64 dev vm0 nodad
    vm_client ip address add 198.18.254.2/24 dev vmctl
    vm_client ip link set dev vm0 up
    vm_client ip link set dev vmctl up
}

# Boots kernel $1 with image $2 and NIC $3 with $4 queues and as many CPUs: igb, virtio, virtio-zc (zero-copy as far as the
# kernel has it), e1000e or vmxnet3. 2xNIC stands for two of them at the same cable.
vm_up() {
    local release=$1 image=$2 nic=$3 queues=${4:-2} device netdev kernel count=1 arguments=() tap_queues=1 i
    kernel=$(find "$VM_DIR/kernel/$release/" -name 'vmlinuz*' | head -1)
    [[ ! -e $vm_state ]] || vm_die "a machine is up already in namespace $VM_NS"
    case $nic in 2x*) count=2 nic=${nic#2x} ;; esac
    case $nic in
    igb | e1000e | vmxnet3) device=$nic ;;
    virtio) device=virtio-net-pci ;;
    # The flag makes the driver use the DMA API, without which it has no zero-copy.
    virtio-zc) device=virtio-net-pci,iommu_platform=on,disable-legacy=on ;;
    *) vm_die "there is no NIC $nic" ;;
    esac
    if [[ $nic == virtio* && $count == 1 ]] && ((queues > 1)); then
        tap_queues=$queues
        device+=,mq=on,vectors=$((2 * queues + 2))
    fi
    netdev=tap,id=n1,ifname=vm0,script=no,downscript=no
    ((tap_queues == 1)) || netdev+=,queues=$queues
    arguments=(-netdev "$netdev" -device "$device,netdev=n1,mac=${vm_mac}1,romfile=")
    if ((count == 2)); then
        arguments=(-netdev "tap,id=t,ifname=vm0,script=no,downscript=no" -netdev hubport,id=t0,hubid=0,netdev=t)
        for i in 1 2; do
            arguments+=(-netdev "hubport,id=n$i,hubid=0" -device "$device,netdev=n$i,mac=$vm_mac$i,romfile=")
        done
    fi
    mkdir -p "$vm_state"
    cp "$image.sha256" "$vm_state/sha256"
    vm_make_client "$tap_queues"
    ip netns exec "$VM_NS" bash -c 'source "$1"; shift; vm_qemu "$@"' - "$(dirname "${BASH_SOURCE[0]}")/lib.sh" \
        -smp "$queues" -kernel "$kernel" -initrd "$image" \
        -append "console=ttyS0 quiet loglevel=6 panic=-1 mitigations=off tsc=reliable vm.mac=$vm_mac vm.control=$vm_control_mac" \
        -serial "file:$vm_state/console" -pidfile "$vm_state/pid" "${arguments[@]}" \
        -netdev tap,id=ctl,ifname=vmctl,script=no,downscript=no \
        -device "virtio-net-pci,netdev=ctl,mac=$vm_control_mac,romfile=" \
        </dev/null >"$vm_state/qemu.log" 2>&1 3>&- 4>&- 5>&- &
    disown
    vm_wait_until_up "$!"
}

# Waits until the guest of process $1 answers.
vm_wait_until_up() {
    local end=$((SECONDS + ${VM_SECONDS:-180}))
    while ((SECONDS < end)); do
        if grep -q '^machine: ready' "$vm_state/console" 2>/dev/null && [[ $(vm_guest echo yes 2>/dev/null) == yes ]]; then
            return
        fi
        if ! kill -0 "$1" 2>/dev/null; then
            tail -5 "$vm_state/qemu.log" "$vm_state/console" >&2
            echo "vm: QEMU has ended" >&2
            return 1
        fi
        sleep 0.2
    done
    tail -15 "$vm_state/console" >&2
    echo "vm: the guest does not answer" >&2
    return 1
}

# Ends the machine, and removes the namespace.
vm_down() {
    local pid
    pid=$(cat "$vm_state/pid" 2>/dev/null || true)
    if [[ -n $pid ]] && grep -q qemu-system "/proc/$pid/cmdline" 2>/dev/null; then
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    fi
    rm -rf "$vm_state"
    if ip netns list | grep -qw "$VM_NS"; then
        ip netns delete "$VM_NS"
    fi
}
