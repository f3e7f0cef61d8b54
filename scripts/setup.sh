#!/usr/bin/env bash
# Installs what building, testing and the lab need on Debian 12, and nothing that is there already.
#
#   scripts/setup.sh
#
# Needs rustup (https://rustup.rs) for the userspace toolchain, and root where a package is missing.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/ebpf-toolchain.sh
source "$scripts/ebpf-toolchain.sh"

die() {
    echo "setup: $*" >&2
    exit 1
}

# libxdp, which xsk-rs builds, wants clang, libelf, zlib, m4 and make; the lab wants the network tools; the tests and
# the demonstration run the clients.
packages=(
    gcc g++ libc6-dev make m4 pkg-config clang libelf-dev zlib1g-dev
    iproute2 ethtool procps util-linux iputils-ping
    ca-certificates curl wrk apache2-utils
)

# Prints those of the given packages that are not installed.
missing_packages() {
    local package
    local -A installed=()
    while read -r package; do
        installed[$package]=1
    done < <(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
        awk '$1 == "installed" { print $2 }')
    for package in "$@"; do
        [[ -n ${installed[$package]:-} ]] || echo "$package"
    done
}

install_packages() {
    if ((EUID != 0)); then
        die "packages are missing: $*. Install them, or run this as root."
    fi
    echo "setup: installing $*"
    # Package lists may be absent, or name versions that the mirror no longer has.
    apt-get update -q </dev/null || echo "setup: apt-get update failed; trying with the package lists that are here" >&2
    # --no-remove: rustc-web and Debian's older rustc exclude each other, and which may go is not for a script to say.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove "$@" </dev/null ||
        die "apt-get could not install: $*. Its own message is above; where packages exclude each other, remove one."
}

require_debian() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        die "only Debian's package tools are known here; install the equivalents of: ${packages[*]} ${EBPF_PACKAGES[*]}"
}

setup_userspace_rust() {
    command -v cargo >/dev/null || die "cargo is missing; install rustup from https://rustup.rs and run this again"
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        command -v rustup >/dev/null || die "rustfmt and clippy are missing, and there is no rustup to add them with"
        rustup component add rustfmt clippy
    fi
}

setup_ebpf_rust() {
    if ! find_ebpf_toolchain; then
        if [[ ${TIDEGATE_EBPF_TOOLCHAIN:-} == nightly ]]; then
            rustup toolchain install nightly --profile minimal --component rust-src
        else
            install_packages "${EBPF_PACKAGES[@]}"
        fi
        find_ebpf_toolchain || die "no Rust of at least 1.$OLDEST_EBPF_RUST with the source of its standard library." \
            "On Debian 12, rustc-web is recent enough only with bookworm-security among the package sources;" \
            "or run \`rustup toolchain install nightly --component rust-src\`"
    fi
    [[ -n $EBPF_LLVM ]] || {
        print_linker_remedy
        exit 1
    }
}

setup_bpf_linker() {
    if [[ ! -x $BPF_LINKER || $("$BPF_LINKER" --version) != "bpf-linker $BPF_LINKER_VERSION" ]]; then
        echo "setup: installing bpf-linker $BPF_LINKER_VERSION (about a minute)"
        # Its install directory is named, as CARGO_INSTALL_ROOT may say something else.
        cargo install bpf-linker --version "$BPF_LINKER_VERSION" --locked --force \
            --root "${BPF_LINKER%/bin/*}" </dev/null
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    isolate_llvm "$scratch/llvm"
    local output
    if ! output=$(try_bpf_linker "$scratch/llvm" "$scratch"); then
        printf '%s\n' "$output" >&2
        print_linker_remedy
        exit 1
    fi
}

# Debian's compiler for the XDP program brings the tool if the two are of the same LLVM.
setup_profile() {
    "$scripts/profile.sh" --tool >/dev/null 2>&1 && return
    { command -v rustup >/dev/null && rustup component add llvm-tools; } ||
        echo "setup: there is no llvm-profdata for this rustc, so releases are built without a profile" >&2
}

require_debian
mapfile -t missing < <(missing_packages "${packages[@]}")
if ((${#missing[@]} > 0)); then
    install_packages "${missing[@]}"
fi
setup_userspace_rust
setup_ebpf_rust
setup_bpf_linker
setup_profile
echo "setup: all there; the XDP program is built with $EBPF_TOOLCHAIN ($("$EBPF_RUSTC" --version)) and" \
    "bpf-linker $BPF_LINKER_VERSION"
