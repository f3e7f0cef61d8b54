#!/usr/bin/env bash
# Builds the XDP programs from source.
#
#   scripts/build-ebpf.sh OUT_FILE [TARGET_DIR [BIN]]
#
# OUT_FILE gets the object of program BIN (default: tidegate). Beside it go xdp-dispatcher.o, which runs it beside others,
# xdp-pass.o, for a veth peer, and traffic.o, the programs of the benchmarks. Files that would not change are left alone. TARGET_DIR is cargo's (default: ebpf/target).
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")
# shellcheck source=scripts/ebpf-toolchain.sh
source "$scripts/ebpf-toolchain.sh"

die() {
    echo "build-ebpf: $*" >&2
    exit 1
}

if (($# < 1 || $# > 3)); then
    echo "usage: scripts/build-ebpf.sh OUT_FILE [TARGET_DIR [BIN]]" >&2
    exit 2
fi
out_file=$(realpath -m -- "$1")
target_dir=$(realpath -m -- "${2:-$root/ebpf/target}")
bin=${3:-tidegate}

# Called from a build script, this inherits what the outer cargo set for another target and another compiler.
while read -r name; do
    case $name in
    CARGO | CARGO_BUILD_* | CARGO_CFG_* | CARGO_ENCODED_* | CARGO_FEATURE_* | CARGO_MAKEFLAGS | CARGO_MANIFEST_* | \
        CARGO_PKG_* | CARGO_PRIMARY_PACKAGE | CARGO_PROFILE_* | CARGO_TARGET_* | DEBUG | DEP_* | HOST | \
        LD_LIBRARY_PATH | MAKEFLAGS | MFLAGS | NUM_JOBS | OPT_LEVEL | OUT_DIR | PROFILE | RUSTC* | RUSTDOC* | \
        RUSTFLAGS | RUSTUP_TOOLCHAIN | TARGET)
        unset "$name"
        ;;
    esac
done < <(compgen -e)

find_ebpf_toolchain ||
    die "no Rust toolchain for BPF (rustc-web with rust-web-src, or nightly with rust-src); run scripts/setup.sh"
[[ -x $BPF_LINKER ]] || die "bpf-linker is not installed; run scripts/setup.sh"
[[ -n $EBPF_LLVM ]] || {
    print_linker_remedy
    exit 1
}

llvm_dir=$target_dir/llvm
isolate_llvm "$llvm_dir"

# Separated by 0x1f, so that a path may hold spaces.
separator=$'\x1f'
flags="-Clinker=$BPF_LINKER${separator}-Cdebuginfo=2${separator}-Ctarget-cpu=v3${separator}-Clink-arg=--btf"
# Behind an Ethernet header nothing is aligned, and without this every octet would be loaded and stored by itself. The
# kernel allows it where the processor does, as on x86-64 and arm64.
flags+="${separator}-Clink-arg=--cpu-features=+allows-misaligned-mem-access"

cd "$root/ebpf"
# RUSTC_BOOTSTRAP: -Z build-std is a nightly option, and the BPF target needs it.
if ! LD_LIBRARY_PATH=$llvm_dir RUSTC_BOOTSTRAP=1 RUSTC=$EBPF_RUSTC CARGO_ENCODED_RUSTFLAGS=$flags \
    "$EBPF_CARGO" build --release --locked --workspace --bins --target bpfel-unknown-none -Z build-std=core \
    --target-dir "$target_dir" </dev/null; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    try_bpf_linker "$llvm_dir" "$scratch" >/dev/null || print_linker_remedy
    die "the XDP program could not be built with $EBPF_TOOLCHAIN; the reason is above"
fi

# Copies $1 to $2 as one step, unless it is there already: cargo would rebuild what depends on a newer file.
copy_if_changed() {
    cmp -s -- "$1" "$2" && return
    cp -- "$1" "$2.new"
    mv -- "$2.new" "$2"
}

objects=$target_dir/bpfel-unknown-none/release
[[ -f $objects/$bin ]] || die "there is no program called $bin"
mkdir -p "$(dirname "$out_file")"
copy_if_changed "$objects/$bin" "$out_file"
for beside in xdp-pass xdp-dispatcher traffic; do
    copy_if_changed "$objects/$beside" "$(dirname "$out_file")/$beside.o"
done
