#!/usr/bin/env bash
# Runs the fuzz targets of the TCP engine for a while each.
#
#   scripts/fuzz.sh [--keep] [SECONDS_PER_TARGET] [TARGET...]
#
# Without arguments: every target in userspace/tcp/fuzz, 60 s each. Every run starts from the inputs in
# userspace/tcp/fuzz/corpus/TARGET; with --keep those found that reach something new are added there.
# Exit code 1 when an input breaks a target; its file is named, and how to run it again.
#
# cargo-fuzz is installed if it is missing. No nightly toolchain is needed: the coverage that libFuzzer wants is made by
# flags of the stable compiler, and without `unsafe` in the engine no sanitizer has anything to find.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fuzz=$root/userspace/tcp/fuzz
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

die() {
    echo "fuzz: $*" >&2
    exit 2
}

keep=false
if [[ ${1:-} == --keep ]]; then
    keep=true
    shift
fi
seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
((seconds > 0)) || die "the time per target is 0 s; it must be at least 1"

command -v c++ >/dev/null || die "libFuzzer is C++ and there is no c++; apt-get install g++"
cargo fuzz --version >/dev/null 2>&1 || {
    echo "fuzz: installing cargo-fuzz"
    cargo install cargo-fuzz --locked
}

# RUSTC_BOOTSTRAP lets the stable compiler take what cargo-fuzz may pass of unstable flags.
cargo_fuzz() {
    RUSTC_BOOTSTRAP=1 cargo fuzz "$1" --fuzz-dir "$fuzz" "${@:2}"
}

mapfile -t targets < <(cargo_fuzz list)
((${#targets[@]} > 0)) || die "no targets in $fuzz"
for target in "$@"; do
    [[ " ${targets[*]} " == *" $target "* ]] || die "no target $target; there are: ${targets[*]}"
done
(($# == 0)) || targets=("$@")

# What is found goes to the first directory given, so that the kept inputs stay as they are.
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

# Fuzzes target $1, and says what broke it.
fuzz_one() {
    local target=$1 started input
    started=$(date +%s)
    # -timeout: an input that takes this long is a failure too. -rss_limit_mb: and so is one that takes this much.
    if ! cargo_fuzz run --sanitizer none "$target" "$found/$target" "$fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1; then
        input=$(find "$fuzz/artifacts/$target" -type f -newermt "@$((started - 1))" 2>/dev/null | head -n 1)
        if [[ -n $input ]]; then
            echo "fuzz: $target failed on $input"
            echo "fuzz: again: RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir $fuzz --sanitizer none $target $input"
        else
            echo "fuzz: $target failed without leaving an input behind; its output is above"
        fi
        return 1
    fi
    if $keep; then
        cargo_fuzz run --sanitizer none "$target" "$fuzz/corpus/$target" "$found/$target" -- -merge=1
    fi
}

cd "$root"
for target in "${targets[@]}"; do
    mkdir -p "$fuzz/corpus/$target" "$found/$target"
    cargo_fuzz build --sanitizer none "$target"
done

# As many at a time as there are processors: each is one thread.
declare -A running=()
stop_all() {
    local pid
    for pid in "${running[@]}"; do
        # In a process group of its own, with cargo and the target in it.
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
}
trap 'stop_all; rm -rf "$found"' EXIT
trap 'exit 1' INT TERM
set -m
for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do
        sleep 1
    done
    echo "fuzz: $target for $seconds s"
    fuzz_one "$target" >"$found/$target.log" 2>&1 </dev/null &
    running[$target]=$!
done
failed=()
for target in "${targets[@]}"; do
    wait "${running[$target]}" || failed+=("$target")
    cat "$found/$target.log"
done
running=()
((${#failed[@]} == 0)) || {
    echo "fuzz: failed: ${failed[*]}; why is above" >&2
    exit 1
}
echo "fuzz: ${targets[*]}: nothing found"
