# shellcheck shell=bash
# Sourced by scripts that check something. `check NAME COMMAND...` prints a line, with the end of the command's output if
# it failed; `failed` is 1 then.

failed=0

check() {
    local name=$1 flags=$- code output
    shift
    output=$(mktemp)
    # Not as the condition of an `if`: nothing in the command would end it then, whatever it sets.
    set +e
    (
        set -e
        "$@"
    ) >"$output" 2>&1
    code=$?
    [[ $flags != *e* ]] || set -e
    if ((code == 0)); then
        echo "ok       $name"
    else
        echo "FAIL     $name"
        sed 's/^/         | /' "$output" | tail -60
        failed=1
    fi
    rm -f "$output"
}

# The same, if program $1 is there.
check_with() {
    local program=$1
    shift
    if command -v "$program" >/dev/null; then
        check "$@"
    else
        echo "SKIPPED  $1: there is no $program"
    fi
}
