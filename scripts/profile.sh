#!/usr/bin/env bash
# Makes the profile by which `make build` optimizes: builds the programs with counters at their branches, puts them under
# load, and merges what was counted.
#
#   scripts/profile.sh            into target/profile/tidegate.profdata, a few minutes
#   scripts/profile.sh --flags    print the RUSTFLAGS of a build by that profile; those that are set if there is none
#   scripts/profile.sh --tool     print the path of the llvm-profdata that merges
#
# The loads are the engine in memory, the simulation over bad links, and, as root, the server in the lab under clients on
# AF_XDP and on the kernel's TCP. A profile of older sources still serves: what has changed since is compiled without.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")
directory=$root/target/profile
profile=$directory/tidegate.profdata
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

die() {
    echo "profile: $1" >&2
    exit "${2:-1}"
}

# Prints the path of an llvm-profdata that reads what this rustc's programs write.
find_tool() {
    local version major tool
    version=$(rustc --version --verbose) || return 1
    major=$(sed -n 's/^LLVM version: \([0-9]*\).*/\1/p' <<<"$version")
    for tool in "$(rustc --print target-libdir)/../bin/llvm-profdata" "llvm-profdata-$major"; do
        command -v "$tool" && return
    done
    return 1
}

# The load $1, called so in messages; the rest is the command. What it prints is of interest only if it fails.
load() {
    local name=$1
    shift
    echo "profile: $name"
    "$@" >"$directory/load.log" 2>&1 || {
        tail -n 20 "$directory/load.log" >&2
        return 1
    }
}

in_lab() {
    TIDEGATE_PROGRAMS=$programs load "in the lab, $1" "$scripts/compare.sh" --targets tidegate --workloads cps,rps --runs 1 "${@:2}"
}

case $#:${1:-} in
    0:) ;;
    1:--flags)
        flags=${RUSTFLAGS:-}
        # By its own name, which is another for every profile: cargo builds anew when the flags change. That a function is
        # another than the profile's is no news after a change.
        if [[ -e $profile ]]; then
            flags+="${flags:+ }-Cprofile-use=$(realpath -- "$profile") -Cllvm-args=-no-pgo-warn-mismatch"
        fi
        echo "$flags"
        exit
        ;;
    1:--tool) ;;
    *) die "usage: scripts/profile.sh [--flags | --tool]" 2 ;;
esac

profdata=$(find_tool) || die "there is no llvm-profdata for this rustc; \`rustup component add llvm-tools\` installs it"
if [[ ${1:-} == --tool ]]; then
    echo "$profdata"
    exit
fi
mkdir -p "$directory"
counts=$(mktemp -d)
trap 'rm -rf -- "$counts"' EXIT
cd "$root"
echo "profile: building with counters"
# Build scripts and macros count, too, and nobody wants to know.
LLVM_PROFILE_FILE=/dev/null RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }-Cprofile-generate -Cdebuginfo=0" \
    cargo build --release --locked --quiet --bin tidegate --bin tidegate-bench --bin tidegate-sim --bin engine-report \
    --target-dir "$directory/build"
programs=$directory/build/release
export LLVM_PROFILE_FILE=$counts/%p-%m.profraw

load "the engine in memory" "$programs/engine-report" --runs 1 --slice 100
load "the simulation" "$programs/tidegate-sim" run --seeds 3000
if ((EUID != 0)); then
    echo "profile: not in the lab, which takes root: the shard's loop and its rings are not in the profile" >&2
elif ! { in_lab "IPv4" --client both && in_lab "IPv6" --ipv6 && in_lab "the server closes" --close server; }; then
    echo "profile: the lab failed, and why is above: the shard's loop and its rings are hardly in the profile" >&2
fi

"$profdata" merge -o "$counts/merged" "$counts"/*.profraw || die "llvm-profdata could not merge what was counted"
read -r sum _ < <(sha256sum "$counts/merged")
rm -f -- "$directory"/*.profdata
mv -- "$counts/merged" "$directory/${sum:0:16}.profdata"
ln -s "${sum:0:16}.profdata" "$profile"
echo "profile: wrote ${profile#"$root"/}"
