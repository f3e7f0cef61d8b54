#!/usr/bin/env bash
# Checks that the lab tests make sockets by `fixture/socket.rs` alone, which refuses to make them outside the lab's
# namespaces: elsewhere a segment would leave by the machine's own routes.
#
#   scripts/check-lab-sockets.sh
#
# Exit code 1 if one is made elsewhere; each is named.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
fixture=userspace/server/tests/lab/fixture/socket.rs
[[ -f $fixture ]] || {
    echo "check-lab-sockets: $fixture is missing" >&2
    exit 1
}
makes='(TcpStream::connect|TcpListener::bind|UdpSocket::bind|[^_a-z:.]socket(_with|pair)?\(|\bSocket::new)'
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- 'userspace/server/tests/lab/*.rs')
if grep -nE "$makes" "${files[@]}" | grep -v "^$fixture:" |
    sed 's/^\([^:]*:[0-9]*\):.*/\1: a socket outside fixture\/socket.rs/'; then
    exit 1
fi
