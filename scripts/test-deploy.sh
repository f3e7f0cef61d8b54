#!/usr/bin/env bash
# Checks what is under scripts/deploy/ with the tools that are meant for it. Prints a line for each check; one whose tool is
# missing says SKIPPED. Exit code 1 if one failed. `make test-deploy` calls this.
#
#   scripts/test-deploy.sh TIDEGATE
#
# Kubernetes manifests: pip install kubernetes-validate cloudcoil-models-prometheus-operator, in a venv of which VENV is the
# folder (default: target/deploy/venv; made if python3 can).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# != 1)); then
    sed -n '2,/^set -/p' "$0" | grep '^#' | cut -c3- >&2
    exit 2
fi
tidegate=$(readlink -f "$1")
venv=${VENV:-target/deploy/venv}
# shellcheck source=scripts/check.sh
source scripts/check.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

installed() {
    DESTDIR=$scratch/root PREFIX=/usr scripts/deploy/install.sh "$tidegate"
    cd "$scratch/root"
    usr/bin/tidegate --version
    zgrep -q '^\.SH OPTIONS' usr/share/man/man1/tidegate-serve.1.gz
    test -s etc/tidegate/tidegate.toml
    # A second time it keeps settings that were changed.
    echo 'iface = "eth9"' >etc/tidegate/tidegate.toml
    cd - >/dev/null
    DESTDIR=$scratch/root PREFIX=/usr scripts/deploy/install.sh "$tidegate"
    grep -qx 'iface = "eth9"' "$scratch/root/etc/tidegate/tidegate.toml"
}

# The unit is the installed one, with the program that is here: systemd wants it to be there.
unit() {
    sed "s|/usr/bin/tidegate|$scratch/root&|; s|/usr/share/tidegate|$scratch/root&|; /^Documentation=/d" \
        "$scratch/root/usr/lib/systemd/system/tidegate.service" >"$scratch/tidegate.service"
    systemd-analyze verify "$scratch/tidegate.service" 2>&1 | tee "$scratch/said"
    [[ ! -s $scratch/said ]]
}

completions() {
    local file=$scratch/root/usr/share/bash-completion/completions/tidegate
    # shellcheck source=/dev/null
    bash -c 'source "$0"; COMP_WORDS=(tidegate serve --xdp-m); COMP_CWORD=2; _tidegate tidegate --xdp-m serve
        [[ " ${COMPREPLY[*]} " == *" --xdp-mode "* ]]' "$file"
}

service_monitor() {
    "$venv/bin/python" - scripts/deploy/kubernetes/servicemonitor.yaml <<-'END'
		import sys, yaml
		from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
		given = yaml.safe_load(open(sys.argv[1]))
		known = ServiceMonitor.model_validate(given).model_dump(mode="json", by_alias=True, exclude_unset=True)
		assert known == given, f"keys that the schema does not have: {given} is read as {known}"
	END
}

config_map() {
    "$venv/bin/python" - scripts/deploy/kubernetes/tidegate.yaml >"$scratch/tidegate.toml" <<-'END'
		import sys, yaml
		given = yaml.safe_load_all(open(sys.argv[1]))
		print(*(one["data"]["tidegate.toml"] for one in given if one["kind"] == "ConfigMap"))
	END
    "$tidegate" check-config "$scratch/tidegate.toml"
}

check "make install, twice" installed
check_with systemd-analyze "systemd-analyze verify" unit
check "completions of bash" completions
if [[ ! -x $venv/bin/kubernetes-validate ]]; then
    { python3 -m venv "$venv" &&
        "$venv/bin/pip" install -q kubernetes-validate cloudcoil-models-prometheus-operator; } >"$scratch/pip" 2>&1 || true
fi
check_with "$venv/bin/kubernetes-validate" "Kubernetes manifests" \
    "$venv/bin/kubernetes-validate" --strict scripts/deploy/kubernetes/tidegate.yaml
check_with "$venv/bin/kubernetes-validate" "settings of the ConfigMap" config_map
check_with "$venv/bin/kubernetes-validate" "ServiceMonitor" service_monitor
check_with "${PROMTOOL:-promtool}" "Prometheus rules" scripts/deploy/prometheus/test.sh
exit "$failed"
