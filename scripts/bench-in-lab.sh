# Sourced by scripts/goodput.sh, fairness.sh, resilience.sh and compare.sh: a subcommand of tidegate-bench with the lab up
# around it.
#
#   bench_in_lab SUBCOMMAND LAB_OPTIONS [ARGUMENT...]
#
# LAB_OPTIONS are those of `scripts/lab.sh up`, as one word, or empty; the arguments are the subcommand's. Ends the script
# with the exit code of tidegate-bench. TIDEGATE_PROGRAMS is where the programs are, if not in target/release.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$root/scripts/lab.sh
programs=${TIDEGATE_PROGRAMS:-$root/target/release}
bench=$programs/tidegate-bench

subcommand=
work=
bench_pid=

die() {
    echo "$subcommand: $*" >&2
    exit 1
}

clean_up() {
    if [[ -n $bench_pid ]]; then
        # It ends what it has started; what is left ends with the lab.
        kill -TERM "$bench_pid" 2>/dev/null || true
        wait "$bench_pid" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        "$lab" down || echo "$subcommand: the lab could not be taken down; see \`scripts/lab.sh status\`" >&2
        rm -rf -- "$work"
    fi
}

bench_in_lab() {
    subcommand=$1
    local options=$2 program status=0
    shift 2
    ((EUID == 0)) || die "network namespaces and XDP take root; run this as root"
    for program in "$bench" "$programs/tidegate"; do
        [[ -x $program ]] || die "$program is not built; run \`make build\`"
    done

    # shellcheck source=scripts/lab-lock.sh
    source "$root/scripts/lab-lock.sh"
    lock_lab "$subcommand"

    trap clean_up EXIT
    trap 'exit 1' INT TERM
    work=$(mktemp -d)
    # shellcheck disable=SC2086 # options, or none
    "$lab" up $options 9>&-
    # In the background, so that a signal is not put off until it ends.
    TMPDIR=$work "$bench" "$subcommand" "$@" 9>&- &
    bench_pid=$!
    wait "$bench_pid" || status=$?
    bench_pid=
    exit "$status"
}
