#!/bin/sh
# What `systemctl reload tidegate` does: has the server read its settings again; or, where another program is at its path
# since it started, as after an upgrade, starts that one, which takes over from it without losing a connection.
#
#   reload.sh TIDEGATE CONTROL ARGUMENT...
#
# TIDEGATE is the program, CONTROL its control socket, and the arguments are those that it is started with. Exit code 1 if
# the server goes on as it was; its log and that of the unit say why.
set -eu

if [ $# -lt 3 ]; then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$1 control=$2
shift 2

# The value of a field of `ctl info`.
field() {
    "$tidegate" ctl --control "$control" info --json | grep -o "\"$1\":[^,}]*" | cut -d : -f 2
}

if [ "$(field replaced)" != true ]; then
    exec "$tidegate" ctl --control "$control" reload
fi

# The watchdog's limit is told only to what the service manager has started by itself.
watchdog=$(field watchdog_usec)
[ "$watchdog" = null ] || export WATCHDOG_USEC="$watchdog"
"$tidegate" "$@" &
new=$!
# Until it has taken over, the one that it takes over from answers. systemd limits the time (TimeoutStartSec=).
while [ "$(field pid || true)" != "$new" ]; do
    if ! kill -0 "$new" 2>/dev/null; then
        echo "the new tidegate has not taken over, and the old one goes on" >&2
        exit 1
    fi
    sleep 0.2
done
