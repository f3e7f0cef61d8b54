#!/usr/bin/env bash
# Whether `tidegate-bench report diff` tells a slower server from the same one: measures serve-kernel over loopback beside
# itself, beside one that needs 5 % more processor time for each request, and beside one that needs 10 % more time.
#
#   scripts/test-diff.sh [--rounds 10] [--pairs 20] [--duration 500ms] [--keep DIR]
#
# Each round is as many runs of each, taken alternately, and three comparisons. Exit code 0 when at most one comparison of
# the same server gave an alarm, and 9 of 10 of the others were found: 10 % by throughput, 5 % by processor time. It takes
# about two minutes a round, and a machine that does little else; make build has to be done before. --keep leaves the
# reports of all runs in a directory. TIDEGATE_PROGRAMS is where the program is, if not in target/release.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bench=${TIDEGATE_PROGRAMS:-$root/target/release}/tidegate-bench
rounds=10
pairs=20
duration=500ms
keep=

die() {
    echo "test-diff: $*" >&2
    exit 1
}

while (($# > 0)); do
    (($# > 1)) || die "$1 needs a value; see the head of this script"
    case $1 in
    --rounds) rounds=$2 ;;
    --pairs) pairs=$2 ;;
    --duration) duration=$2 ;;
    --keep) keep=$2 ;;
    *) die "unknown argument $1; see the head of this script" ;;
    esac
    shift 2
done
[[ -x $bench ]] || die "$bench is not built; run \`make build\`"

work=$(mktemp -d)
servers=()
declare -A port pid
clean_up() {
    local server
    for server in "${servers[@]}"; do
        kill "$server" 2>/dev/null || true
    done
    wait
    rm -rf -- "$work"
}
trap clean_up EXIT
[[ -z $keep ]] || mkdir -p -- "$keep"
results=${keep:-$work}

# The CPUs of the server and of the client, which are one if there is no other.
mapfile -t cpus < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' | awk -F- '{ for (cpu = $1; cpu <= $NF; cpu++) print cpu }')
server_cpu=${cpus[0]}
client_cpu=${cpus[1]:-${cpus[0]}}

# serve NAME PORT [ARGUMENT...]
serve() {
    local name=$1
    port[$name]=$2
    "$bench" serve-kernel --listen "http=127.0.0.1:$2" --cpu "$server_cpu" "${@:3}" >"$work/$name.log" &
    pid[$name]=$!
    servers+=("${pid[$name]}")
    until grep -qs ready "$work/$name.log"; do
        kill -0 "${pid[$name]}" 2>/dev/null || die "serve-kernel on port $2 ended"
        sleep 0.05
    done
}

# measure NAME FILE: a machine that does other things may give a run nothing at all, which is tried again.
measure() {
    local attempt
    for attempt in 1 2 3 4 5; do
        ! "$bench" rps --url "http://127.0.0.1:${port[$1]}/" --connections 8 --cpu "$client_cpu" --warm-up 100ms \
            --duration "$duration" --server-pid "${pid[$1]}" --json "$2" >"$work/run.log" 2>&1 || return 0
        echo "attempt $attempt to measure $1 failed: $(tail -n 1 "$work/run.log")" >&2
    done
    die "no run of $1 succeeds"
}

# field NAME FILE: the number behind a name of the JSON, the first there is.
field() {
    grep -m1 -o "\"$1\": [0-9.e-]*" "$2" | sed 's/.*: //'
}

serve old 18801
serve same 18802
duration_of_test=$duration
duration=2s
measure old "$work/first.json"
duration=$duration_of_test
cpu_us=$(grep -A3 '"cpu_us_per_operation"' "$work/first.json" | grep -m1 -o '"server": [0-9.]*' | sed 's/.*: //')
rate=$(field value "$work/first.json")
serve dearer 18803 --spin "$(awk -v cpu="$cpu_us" 'BEGIN { printf "%dns", cpu * 50 }')"
serve slower 18804 --spin "$(awk -v rate="$rate" 'BEGIN { printf "%dns", 1e9 / rate / 9 }')"
echo "$(field value "$work/first.json") requests/s, $cpu_us us of processor time for each; $rounds rounds of $pairs pairs"

alarms=0
by_cpu=0
by_rate=0
for ((round = 1; round <= rounds; round++)); do
    directory=$results/round-$round
    mkdir -p -- "$directory"/{old,same,dearer,slower}
    for ((pair = 1; pair <= pairs; pair++)); do
        names=(old same dearer slower)
        # Not always the same one after the same other.
        ((pair % 2)) || names=(slower dearer same old)
        for name in "${names[@]}"; do
            measure "$name" "$directory/$name/$(printf %04d "$pair").json"
        done
    done
    # compare NAME THRESHOLD: prints the comparison; its exit code is that of the program.
    compare() {
        "$bench" report diff --paired --ignore target --threshold "$2" "$directory/old" "$directory/$1" |
            tee "$directory/$1.txt"
    }
    echo "round $round"
    status=0
    compare same 2% || status=$?
    ((status < 2)) || die "the comparison failed"
    ((status == 0)) || alarms=$((alarms + 1))
    compare dearer 2% || true
    ! grep -q 'server CPU us/op .*worse: regression' "$directory/dearer.txt" || by_cpu=$((by_cpu + 1))
    compare slower 5% || true
    ! grep -q 'per second .*worse: regression' "$directory/slower.txt" || by_rate=$((by_rate + 1))
done
echo "$rounds comparisons each: $alarms false alarms, 5 % by processor time found $by_cpu times, 10 % by throughput $by_rate times"
((alarms <= 1 && by_cpu * 10 >= rounds * 9 && by_rate * 10 >= rounds * 9))
