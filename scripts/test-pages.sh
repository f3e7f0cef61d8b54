#!/usr/bin/env bash
# Looks at a page of every kind of report in Debian's chromium: at two widths, light and dark.
#
#   scripts/test-pages.sh [DIRECTORY]
#
# The tests of the reports leave their pages in DIRECTORY (default: target/pages); pictures of them come beside. Fails
# on errors in the console, on a page that is wider than the window, on labels that are cut or on each other, and on
# tables that are not those of the terminal.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${1:-target/pages}
browser=$(command -v chromium || true)
if [ -z "$browser" ]; then
    echo "test-pages: chromium is not installed; 'apt-get install chromium' installs it" >&2
    exit 1
fi

mkdir -p "$directory"
rm -f "$directory"/*.{html,txt,png}
directory=$(realpath "$directory")
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
# The crates whose tests make reports.
packages=()
for manifest in $(grep -rl --include='*.rs' assert_report bench | sed 's|/src/.*|/Cargo.toml|' | sort -u); do
    packages+=(--package "$(awk -F'"' '/^name = / { print $2; exit }' "$manifest")")
done
TIDEGATE_PAGES=$directory cargo test --quiet --locked "${packages[@]}" -- report
cp scripts/test-pages.html "$directory"

# Runs chromium with "$@". No sandbox, since that refuses root; the pages are our own.
chromium() {
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
        --user-data-dir="$profile" --enable-logging=stderr --virtual-time-budget=5000 "$@" 2>"$directory/chromium.log"
}

failed=0
for page in "$directory"/*.txt; do
    name=$(basename "$page" .txt)
    for width in 360 1280; do
        for scheme in dark light; do
            # 0 is dark and 1 is light.
            flags=(--blink-settings=preferredColorScheme=$([ $scheme = dark ]; echo $?) --window-size=$width,2400)
            url="file://$directory/test-pages.html?$name&$width&$scheme"
            dom=$(chromium "${flags[@]}" --dump-dom --screenshot="$directory/$name-$width-$scheme.png" "$url") || dom=
            result=${dom#*'<pre id="result">'}
            result=${result%%'</pre>'*}
            if console=$(grep ':CONSOLE' "$directory/chromium.log"); then
                result="$result"$'\n'"$console"
            fi
            if [ "$result" = ok ]; then
                echo "test-pages: $name, $width pixels, $scheme: ok"
            else
                failed=1
                printf 'test-pages: %s, %s pixels, %s: FAILED\n%s\n' "$name" $width $scheme "${result:-no answer}" >&2
            fi
        done
    done
done
exit $failed
