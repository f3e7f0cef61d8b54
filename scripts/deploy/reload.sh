#!/bin/bash
# What `systemctl reload tidegate` does: has the server read its settings again; or, where another program is at its path
# since it started, as after an upgrade, starts that one, which takes over from it without losing a connection.
#
#   reload.sh TIDEGATE CONTROL ARGUMENT...
#
# TIDEGATE is the program, CONTROL its control socket, and the arguments are those that it is started with. Exit code 1 if
# the server goes on as it was; its log and that of the unit say why.
set -euo pipefail

if (($# < 3)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$1 control=$2
shift 2

# The value of field $1 of what the server says of itself.
field() {
    "$tidegate" ctl --control "$control" info --json | grep -o "\"$1\":[^,}]*" | cut -d : -f 2
}

replaced=$(field replaced)
if [[ $replaced == false ]]; then
    exec "$tidegate" ctl --control "$control" reload
fi

# The service manager tells the watchdog's limit only to what it has started by itself.
watchdog=$(field watchdog_usec)
if [[ $watchdog =~ ^[0-9]+$ ]]; then
    export WATCHDOG_USEC=$watchdog
fi
"$tidegate" "$@" &
new=$!
# Until it has taken over, the one that it takes over from answers. systemd limits the time (TimeoutStartSec=). The new
# process may be another user's by now, which no signal asks after.
while [[ $(field pid || true) != "$new" ]]; do
    if [[ -z $(jobs -pr) ]]; then
        echo "the new tidegate has not taken over, and the old one goes on" >&2
        exit 1
    fi
    sleep 0.2
done
