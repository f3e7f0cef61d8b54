# shellcheck shell=bash
# Which Rust and which linker build the XDP program. Sourced by setup.sh and build-ebpf.sh.
#
# The standard library's source is needed, because core has to be built for the BPF target. Debian packages it
# (rustc-web, cargo-web, rust-web-src); rustup has it for a nightly with the component rust-src. Debian's comes first
# when both are there: it changes only with a security update. TIDEGATE_EBPF_TOOLCHAIN=rustc-web|nightly decides.

# The release that bpf-linker is installed at. It is made for one LLVM, here 22, which must be the one rustc was built
# with; its README lists which release goes with which.
BPF_LINKER_VERSION=${BPF_LINKER_VERSION:-0.10.4}
BPF_LINKER=${CARGO_HOME:-$HOME/.cargo}/bin/bpf-linker

# The oldest rustc that aya-ebpf and this workspace compile with.
OLDEST_EBPF_RUST=88

# Packages of Debian's toolchain.
EBPF_PACKAGES=(rustc-web cargo-web rust-web-src)

# Sets EBPF_TOOLCHAIN (rustc-web or nightly), EBPF_RUSTC, EBPF_CARGO and EBPF_LLVM, the LLVM that rustc loads.
# Fails when neither toolchain is installed.
find_ebpf_toolchain() {
    local wanted=${TIDEGATE_EBPF_TOOLCHAIN:-} toolchain bin library
    for toolchain in rustc-web nightly; do
        if [[ -n $wanted && $wanted != "$toolchain" ]]; then
            continue
        fi
        if [[ $toolchain == rustc-web ]]; then
            bin=/usr/bin
            library=/usr/lib/rustlib/src/rust/library
        else
            bin=${RUSTUP_HOME:-$HOME/.rustup}/toolchains/nightly-$(uname -m)-unknown-linux-gnu/bin
            library=${bin%/bin}/lib/rustlib/src/rust/library
        fi
        if [[ -x $bin/rustc && -x $bin/cargo && -f $library/Cargo.lock ]] && is_new_enough "$bin/rustc"; then
            EBPF_TOOLCHAIN=$toolchain
            EBPF_RUSTC=$bin/rustc
            EBPF_CARGO=$bin/cargo
            # Asked of the dynamic linker: several LLVMs may be installed side by side.
            EBPF_LLVM=$(env -u LD_LIBRARY_PATH ldd "$EBPF_RUSTC" | awk '$1 ~ /^libLLVM/ { print $3; exit }')
            return 0
        fi
    done
    return 1
}

# Whether the compiler $1 is Rust 1.$OLDEST_EBPF_RUST or later.
is_new_enough() {
    local version
    version=$("$1" --version) || return 1
    [[ $version =~ ^rustc\ 1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= OLDEST_EBPF_RUST))
}

# Makes directory $1 hold EBPF_LLVM and nothing else. bpf-linker loads the first file called libLLVM* that it finds
# along LD_LIBRARY_PATH, and a system directory may well begin with an older one.
isolate_llvm() {
    local name
    name=$(basename "$EBPF_LLVM")
    mkdir -p "$1"
    find "$1" -mindepth 1 ! -name "$name" -delete
    [[ $1/$name -ef $EBPF_LLVM ]] || ln -sfn "$EBPF_LLVM" "$1/$name"
}

# Links one function with bpf-linker and the LLVM isolated in directory $1, in directory $2. Prints what the linker
# says.
try_bpf_linker() {
    cat >"$2/probe.ll" <<'IR'
; ModuleID = 'probe'
source_filename = "probe"
target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
target triple = "bpfel-unknown-none"

define i32 @probe(i32 %x) {
  %result = add i32 %x, 1
  ret i32 %result
}
IR
    LD_LIBRARY_PATH=$1 "$BPF_LINKER" --btf --export probe --output "$2/probe.o" "$2/probe.ll" 2>&1 &&
        [[ -s $2/probe.o ]]
}

# What to do when bpf-linker and EBPF_LLVM do not fit.
print_linker_remedy() {
    cat >&2 <<TEXT
bpf-linker $BPF_LINKER_VERSION cannot work with the LLVM of $EBPF_TOOLCHAIN (${EBPF_LLVM:-none found}).
It has to be a release made for that LLVM: look it up at https://github.com/aya-rs/bpf-linker/releases and run
    BPF_LINKER_VERSION=x.y.z scripts/setup.sh
TEXT
}
