#!/usr/bin/env bash
# The sweep of docs/benchmarks.md: latency by offered rate of tidegate, nginx and serve-kernel, which serve the same 128
# octets in a lab of the script's own, each bound to the first processor; the client is bound to the second.
#
#   scripts/sweep.sh [ARGUMENT...]                     (default: --rates 10k..500k)
#
# The arguments are those of `tidegate-bench sweep rps`, such as --rates, --html FILE and --json FILE. Needs root, two
# processors, nginx (apt-get install nginx-light), and target/release/tidegate and tidegate-bench (`make build`);
# TIDEGATE_PROGRAMS is where they are, if not there.
set -euo pipefail

(($# > 0)) || set -- --rates 10k..500k
command -v nginx >/dev/null || {
    echo "sweep: there is no nginx; apt-get install nginx-light" >&2
    exit 1
}
# shellcheck source=scripts/servers-in-lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/servers-in-lab.sh"
begin_lab sweep

mkdir "$work/www"
head -c 128 /dev/zero | tr '\0' x >"$work/www/index.html"
chmod -R a+rX "$work"
cat >"$work/nginx.conf" <<END
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 8192; }
http {
    access_log off;
    keepalive_requests 1000000000;
    server { listen 198.18.0.1:81; root $work/www; }
}
END
printf '[http]\nkeepalive_requests = 1000000000\n' >"$work/tidegate.toml"
"$lab" up 9>&-
# The client brings its own program.
"$lab" client ip link set dev tgc0 xdp off
"$lab" server ip route add 198.19.0.0/16 via 198.18.0.2
start_server tidegate --config "$work/tidegate.toml" --iface tgs0 --listen http=198.18.0.1:80 --root "$work/www"
ip netns exec "$TIDEGATE_LAB-server" taskset -c 0 nginx -c "$work/nginx.conf" >>"$work/nginx.log" 2>&1 9>&- &
started+=($!)
ip netns exec "$TIDEGATE_LAB-server" "$programs/tidegate-bench" serve-kernel --listen http=198.18.0.1:82 --root "$work/www" \
    --cpu 0 >"$work/serve-kernel.log" 2>&1 9>&- &
started+=($!)
sleep 1
"$lab" client "$programs/tidegate-bench" sweep rps --client bypass --iface tgc0 --sources 198.19.0.0/24 --cpu 1 \
    --url tidegate=http://198.18.0.1/index.html --url nginx=http://198.18.0.1:81/index.html \
    --url serve-kernel=http://198.18.0.1:82/index.html "$@" 9>&-
