#!/usr/bin/env bash
# Whether `tidegate-bench report diff` tells a slower server from the same one: measures serve-kernel over loopback beside
# itself, beside one that needs 5 % more processor time for each request, and beside one that does about 10 % less.
#
#   scripts/test-diff.sh [--rounds 10] [--pairs 20] [--duration 500ms] [--keep DIR]
#
# Each round is as many runs of each, taken alternately, and three comparisons. Exit code 0 when at most one comparison of
# the same server gave an alarm, and 9 of 10 of the others were found: 10 % by throughput, 5 % by processor time. It takes
# half a minute, and one to two minutes a round, and a machine that does little else; make build has to be done before. No
# program runs for longer than RUN_LIMIT, and a run is tried five times at most. --keep leaves the reports of all runs in a
# directory. TIDEGATE_PROGRAMS is where the program is, if not in target/release.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bench=${TIDEGATE_PROGRAMS:-$root/target/release}/tidegate-bench
rounds=10
pairs=20
duration=500ms
keep=
# Seconds for a measurement, a comparison, or a server's start.
RUN_LIMIT=60

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
    local name=$1 end=$((SECONDS + RUN_LIMIT))
    port[$name]=$2
    "$bench" serve-kernel --listen "http=127.0.0.1:$2" --cpu "$server_cpu" "${@:3}" >"$work/$name.log" &
    pid[$name]=$!
    servers+=("${pid[$name]}")
    until grep -qs ready "$work/$name.log"; do
        kill -0 "${pid[$name]}" 2>/dev/null || die "serve-kernel on port $2 ended"
        ((SECONDS < end)) || die "serve-kernel on port $2 is not ready after $RUN_LIMIT s"
        sleep 0.05
    done
}

# measure NAME FILE DURATION: a machine that does other things may give a run nothing at all, which is tried again.
measure() {
    local attempt status
    for attempt in 1 2 3 4 5; do
        status=0
        timeout "$RUN_LIMIT" "$bench" rps --url "http://127.0.0.1:${port[$1]}/" --connections 8 --cpu "$client_cpu" \
            --warm-up 100ms --duration "$3" --server-pid "${pid[$1]}" --json "$2" >"$work/run.log" 2>&1 || status=$?
        case $status in
        0) return 0 ;;
        2) die "the arguments of a run are wrong: $(cat "$work/run.log")" ;;
        esac
        echo "attempt $attempt to measure $1 failed with exit code $status: $(tail -n 1 "$work/run.log")" >&2
    done
    die "no run of $1 succeeds"
}

# compare DIRECTORY NAME THRESHOLD: prints the comparison of NAME with old. True without a regression.
compare() {
    local status=0
    timeout "$RUN_LIMIT" "$bench" report diff --paired --ignore target --threshold "$3" "$1/old" "$1/$2" >"$1/$2.txt" ||
        status=$?
    cat "$1/$2.txt"
    ((status < 2)) || die "the comparison of $2 fails with exit code $status"
    return "$status"
}

# field NAME FILE: the number behind a name of the JSON, the first there is.
field() {
    grep -m1 -o "\"$1\": [0-9.e-]*" "$2" | sed 's/.*: //'
}

# percent_lost NAME: the percentage of requests that NAME does less than old, the median of nine pairs.
percent_lost() {
    local _
    for _ in {1..9}; do
        measure old "$work/old.json" "$duration"
        measure "$1" "$work/$1.json" "$duration"
        awk -v old="$(field value "$work/old.json")" -v new="$(field value "$work/$1.json")" \
            'BEGIN { printf "%.1f\n", (1 - new / old) * 100 }'
    done | sort -g | sed -n 5p
}

serve old 18801
serve same 18802
measure old "$work/first.json" 2s
cpu_us=$(grep -A3 '"cpu_us_per_operation"' "$work/first.json" | grep -m1 -o '"server": [0-9.]*' | sed 's/.*: //')
rate=$(field value "$work/first.json")
serve dearer 18803 --spin "$(awk -v cpu="$cpu_us" 'BEGIN { printf "%dns", cpu * 50 }')"
# A request that takes longer delays others as well, so the spin for 10 % fewer requests is found by trying.
spin=$(awk -v rate="$rate" 'BEGIN { printf "%d", 1e9 / rate / 9 }')
serve guess 18804 --spin "${spin}ns"
lost=$(percent_lost guess)
awk -v lost="$lost" 'BEGIN { exit !(lost > 2) }' || die "$spin ns more for each request take only $lost % of the requests"
corrected=$(awk -v spin="$spin" -v lost="$lost" 'BEGIN { printf "%d", spin * 10 / lost }')
serve slower 18805 --spin "${corrected}ns"
slower=$(percent_lost slower)
echo "$spin ns more for each request take $lost % of the requests, $corrected ns $slower %"
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
            measure "$name" "$directory/$name/$(printf %04d "$pair").json" "$duration"
        done
    done
    echo "round $round"
    compare "$directory" same 2% || alarms=$((alarms + 1))
    if ! compare "$directory" dearer 2% && grep -q 'server CPU us/op .*worse: regression' "$directory/dearer.txt"; then
        by_cpu=$((by_cpu + 1))
    fi
    if ! compare "$directory" slower 5% && grep -q 'per second .*worse: regression' "$directory/slower.txt"; then
        by_rate=$((by_rate + 1))
    fi
done
echo "$rounds comparisons each: $alarms false alarms, 5 % by processor time found $by_cpu times, 10 % by throughput $by_rate times"
((alarms <= 1 && by_cpu * 10 >= rounds * 9 && by_rate * 10 >= rounds * 9))
