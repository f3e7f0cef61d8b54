#!/bin/bash
# The checks of test-deb.sh, inside the machine: /root/first.deb and /root/newer.deb, and modules in /root/modules.

# shellcheck source=scripts/check.sh
source /root/check.sh

# The interface, and a client in a network namespace at its other end.
network() {
    for module in $(cat /root/modules/veth.order); do insmod "/root/modules/$module.ko"; done
    ip netns add client
    ip link add tgs0 type veth peer name tgc0 netns client
    ip address add 198.18.0.1/24 dev tgs0
    ip -n client address add 198.18.0.2/24 dev tgc0
    ip link set dev tgs0 up
    ip -n client link set dev tgc0 up
    ip netns exec client ethtool -K tgc0 tx off
}

fetch() {
    ip netns exec client curl -sS -m 20 -o /tmp/fetched http://198.18.0.1/page && grep -qx text /tmp/fetched
}

# Fetches until it works, for a minute.
fetch_soon() {
    for _ in $(seq 60); do
        ! fetch || return 0
        sleep 1
    done
    systemctl status tidegate
    return 1
}

# A configuration that cannot be is refused to who asks, and another one is served by.
reloaded() {
    cp /etc/tidegate/tidegate.toml /root/right.toml
    sed -i '1i drain = "a while"' /etc/tidegate/tidegate.toml
    if systemctl reload tidegate; then exit 1; fi
    # A log in a folder that the server does not reach since its start, and one in the folder that the unit has for logs.
    mkdir -p /srv/logs
    { cat /root/right.toml; printf '[access_log]\npath = "/srv/logs/access.log"\n'; } >/etc/tidegate/tidegate.toml
    if systemctl reload tidegate; then exit 1; fi
    journalctl --sync
    journalctl -q -u tidegate --no-hostname -o cat | grep 'tidegate.toml:.*access_log.path.*/var/log/tidegate'
    sed -i 's|/srv/logs|/var/log/tidegate|' /etc/tidegate/tidegate.toml
    systemctl reload tidegate
    fetch
    systemctl kill --signal USR2 tidegate
    for _ in $(seq 20); do
        if grep -q 'GET /page' /var/log/tidegate/access.log; then return; fi
        sleep 1
    done
    exit 1
}

main_pid() {
    systemctl show -P MainPID tidegate
}

install_it() {
    dpkg -i /root/first.deb
    test "$(systemctl is-enabled tidegate)" = disabled
    test "$(systemctl is-active tidegate)" = inactive
    tidegate check-config /etc/tidegate/tidegate.toml
}

serve() {
    mkdir -p /srv/www
    echo text >/srv/www/page
    printf '%s\n' 'iface = "tgs0"' 'listen = ["http=198.18.0.1:80"]' 'root = "/srv/www"' '[afxdp]' \
        'xdp_mode = "generic"' 'take_over = "/run/tidegate/take-over"' 'take_over_preparation = "15min"' \
        'take_over_timeout = "2min"' >/etc/tidegate/tidegate.toml
    # In an emulated machine all takes longer, the kernel's check of the XDP program a minute.
    mkdir -p /etc/systemd/system/tidegate.service.d
    printf '[Service]\nWatchdogSec=20s\nTimeoutStartSec=15min\n' >/etc/systemd/system/tidegate.service.d/limits.conf
    systemctl daemon-reload
    systemctl enable --now tidegate || { systemctl status tidegate; journalctl -u tidegate; exit 1; }
    fetch
    # Without warnings that something of its privileges could not be given up.
    if journalctl -u tidegate | grep 'out of reach'; then exit 1; fi
    grep -q '^Seccomp:.2' "/proc/$(main_pid)/status"
}

control() {
    tidegate ctl --control /run/tidegate/control info
}

killed() {
    local before
    before=$(main_pid)
    ((before > 0)) || return 1
    kill -9 "$before"
    fetch_soon && test "$(main_pid)" != "$before"
}

hung() {
    local before
    before=$(main_pid)
    ((before > 0)) || return 1
    # All threads stop, and nothing but the watchdog tells.
    kill -STOP "$before"
    fetch_soon && test "$(main_pid)" != "$before" && journalctl -u tidegate | grep -q 'Watchdog timeout'
}

# Fetches again and again while there is a file of this name, and writes how often it did, and how often not.
load() {
    local well=0 failed=0
    while [[ -e $1 ]]; do
        if fetch 2>>"$1.errors"; then well=$((well + 1)); else failed=$((failed + 1)); fi
    done
    echo "$well fetched, $failed failed" >"$1.result"
}

# Downloads a little each second while there is a file of this name, and then the rest.
download() {
    ip netns exec client curl -sS -m 1800 http://198.18.0.1/large | {
        while [[ -e $1 ]]; do
            head -c 20000
            sleep 1
        done
        cat
    } >/tmp/large
}

# The end of the service's log, without counters.
service_log() {
    journalctl -q -u tidegate -b -n 1000 --no-hostname -o short-precise |
        grep -vE ']: [a-z0-9_]+(\{[^}]*\})? [0-9]+$' | tail -40
}

# With the same XDP program the new process takes over: a download goes on, and no new connection fails.
upgraded() {
    local before
    before=$(main_pid)
    echo '# changed' >>/etc/tidegate/tidegate.toml
    head -c 40000000 /dev/urandom >/srv/www/large
    touch /tmp/load
    load /tmp/load &
    download /tmp/load &
    sleep 5
    dpkg --force-confold -i /root/newer.deb
    # Shown if this fails: why it could not take over is in the log.
    service_log
    test "$(main_pid)" != "$before"
    systemctl is-active tidegate
    # The one before is still there for its download.
    kill -0 "$before"
    sleep 2
    rm /tmp/load
    wait
    sort /tmp/load.errors | uniq -c
    cat /tmp/load.result
    cmp /tmp/large /srv/www/large
    grep -q '^[1-9][0-9]* fetched, 0 failed$' /tmp/load.result
    grep -q '# changed' /etc/tidegate/tidegate.toml
    tidegate ctl --control /run/tidegate/control info | tee /tmp/info
    if grep -q 'another program' /tmp/info; then exit 1; fi
    for _ in $(seq 60); do
        if ! kill -0 "$before" 2>/dev/null; then break; fi
        sleep 2
    done
    if kill -0 "$before" 2>/dev/null; then exit 1; fi
    # The new process is the service: it reloads, and the watchdog is fed by it (25 s are more than its limit).
    systemctl reload tidegate
    sleep 25
    test "$(main_pid)" != "$before"
    fetch
    test "$(systemctl show -P NRestarts tidegate)" = "$restarts"
}

removed() {
    rm -r /etc/systemd/system/tidegate.service.d
    dpkg --purge tidegate || return 1
    systemctl daemon-reload
    local left
    left=$(find / -xdev -iname '*tidegate*' ! -path '/root/*' ! -path '/tmp/*' ! -path '/proc/*')
    echo "left: $left"
    ! pidof tidegate && test -z "$left" && ! ip link show dev tgs0 | grep -q xdp &&
        ! systemctl cat tidegate && test ! -e /run/tidegate
}

echo "vm: begin"
check "an interface with a client at its other end" network
check "the package goes in, and starts nothing" install_it
check "the service serves, with all it can give up given up" serve
check "the control socket answers" control
check "a reload is refused with an error, and another logs requests" reloaded
check "killed, it is started again and serves" killed
check "hung, the watchdog ends it, and it is started again and serves" hung
restarts=$(systemctl show -P NRestarts tidegate)
check "an upgrade under load loses no connection and keeps the settings" upgraded
rm -f /tmp/load
sed 's/^/         | /' /tmp/load.result || true
check "purged, it leaves nothing" removed
echo "vm: exit code $failed"
