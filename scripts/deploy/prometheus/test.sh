#!/usr/bin/env bash
# Checks the alerts, with a case for each, and the example of a configuration with promtool (Debian's package
# `prometheus`).
#
#   scripts/deploy/prometheus/test.sh
set -euo pipefail
cd "$(dirname "$0")"

promtool=${PROMTOOL:-$(command -v promtool || true)}
if [ -z "$promtool" ]; then
    echo "prometheus: promtool is not installed; 'apt-get install prometheus' installs it" >&2
    exit 1
fi
"$promtool" check config --lint=all --lint-fatal prometheus.yml
"$promtool" check rules --lint=all --lint-fatal rules.yml
"$promtool" test rules rules-test.yml
# Each alert has a case, or it is not known to fire.
for alert in $(sed -n 's/^ *- alert: //p' rules.yml); do
    if ! grep -q "alertname: $alert\$" rules-test.yml; then
        echo "prometheus: no test of the alert $alert" >&2
        exit 1
    fi
done
echo "prometheus: passed"
