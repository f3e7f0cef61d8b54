#!/usr/bin/env bash
# Counts the instructions of the engine's hot paths with callgrind, beside those of the committed baseline.
#
#   scripts/bench-instructions.sh [--update]
#
# A report: it fails only if something it needs is missing or cannot be built, never because of a figure. With --update
# the baseline, bench/engine/instructions.txt, is written anew; compilers differ, so its first line says which it was.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
baseline=$root/bench/engine/instructions.txt
workloads=(connection request request_1024 cookie_make cookie_check checksum timer)
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

die() {
    echo "bench-instructions: $1" >&2
    exit "${2:-1}"
}

update=false
case $#:${1:-} in
    0:) ;;
    1:--update) update=true ;;
    *) die "usage: scripts/bench-instructions.sh [--update]" 2 ;;
esac

command -v valgrind >/dev/null || die "callgrind counts the instructions and there is no valgrind; apt-get install valgrind"
command -v cargo >/dev/null || die "there is no cargo; run scripts/setup.sh"

cd "$root"
echo "bench-instructions: building"
cargo build --release --locked --quiet --package tidegate-engine-bench --bin instructions
binary=${CARGO_TARGET_DIR:-$root/target}/release/instructions
compiler=$(rustc --version)

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# Instructions per operation of one workload, on stdout.
count() {
    local workload=$1 operations total
    operations=$(valgrind --tool=callgrind --callgrind-out-file="$work/$workload.out" --collect-atstart=no \
        --toggle-collect='*counted_by_callgrind*' "$binary" "$workload" 2>"$work/$workload.log") || {
        cat "$work/$workload.log" >&2
        die "valgrind could not run $workload; what it says is above"
    }
    total=$(awk '$1 == "totals:" { print $2; exit }' "$work/$workload.out")
    ((${total:-0} > 0)) || die "callgrind counted nothing in $workload; is target/release/instructions stripped of its symbols?"
    awk -v total="$total" -v operations="$operations" 'BEGIN { printf "%.1f\n", total / operations }'
}

{
    echo "# $compiler, $(uname -m); written by scripts/bench-instructions.sh --update"
    echo "# workload, instructions per operation"
} >"$work/counts"

baseline_of() {
    [[ -f $baseline ]] || return 0
    awk -v workload="$1" '$1 == workload { print $2; exit }' "$baseline"
}

printf '%-14s %14s %14s %10s\n' workload instructions baseline change
for workload in "${workloads[@]}"; do
    new=$(count "$workload")
    echo "$workload $new" >>"$work/counts"
    old=$(baseline_of "$workload")
    if [[ -n $old ]]; then
        change=$(awk -v new="$new" -v old="$old" 'BEGIN { printf "%+.1f %%", (new - old) * 100 / old }')
    else
        change=
    fi
    printf '%-14s %14s %14s %10s\n' "$workload" "$new" "${old:--}" "${change:--}"
done

if $update; then
    cp -- "$work/counts" "$baseline"
    echo "bench-instructions: wrote ${baseline#"$root"/}"
elif [[ ! -f $baseline ]]; then
    echo "bench-instructions: there is no baseline; \`scripts/bench-instructions.sh --update\` writes one"
elif [[ $(head -n 1 "$baseline") != $(head -n 1 "$work/counts") ]]; then
    echo "bench-instructions: the baseline was made with another compiler or machine:"
    sed -n '1s/^# /  /p' "$baseline"
fi
