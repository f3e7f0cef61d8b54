# Sourced by scripts/listing.sh, sweep.sh, take-over.sh and watching.sh: servers in a lab of the script's own.
#
#   begin_lab NAME                waits until nobody else uses a lab; its name is tg-NAME, and there is a folder `work`; at
#                                 the script's end everything in `started` ends, and lab and folder go
#   start_server LOG ARGUMENT...  starts `tidegate serve` in the lab, which is up, and waits until it serves
#   die REASON                    ends the script with the ends of all logs
#
# What a script starts itself has to close descriptor 9 (lab-lock.sh). TIDEGATE_PROGRAMS is where the programs are, if not
# in target/release.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lab=$root/scripts/lab.sh
programs=${TIDEGATE_PROGRAMS:-$root/target/release}
name=
work=
started=()

clean_up() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait || true
    "$lab" down 9>&-
    rm -rf -- "$work"
}

die() {
    echo "$name: $1" >&2
    tail -n 20 "$work"/*.log >&2 || true
    exit 1
}

begin_lab() {
    name=$1
    export TIDEGATE_LAB=tg-$name
    # shellcheck source=scripts/lab-lock.sh
    source "$root/scripts/lab-lock.sh"
    lock_lab "$name"
    work=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 1' INT TERM
}

start_server() {
    local log=$work/$1.log
    shift
    ip netns exec "$TIDEGATE_LAB-server" "$programs/tidegate" serve "$@" >"$log" 2>&1 9>&- &
    started+=($!)
    for _ in $(seq 600); do
        ! grep -qs '^tidegate: ready' "$log" || return 0
        kill -0 "${started[-1]}" 2>/dev/null || die "the server has ended"
        sleep 0.1
    done
    die "the server does not serve"
}
