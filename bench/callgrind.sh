#!/usr/bin/env bash
# Counts the instructions that a message costs on its way, by valgrind's callgrind: they do not depend
# on what else the machine does, so a regression shows that a stopwatch would miss.
#
#   bench/callgrind.sh            compare with bench/callgrind.tsv; fails if a path is over 5 % dearer
#   bench/callgrind.sh --update   write the file
#
# The numbers belong to one compiler and one set of dependencies. With another one take the base anew
# before you judge a change; the first lines of the file say what it was made with. System calls
# count as nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

base=bench/callgrind.tsv
tolerance=5
command -v valgrind >/dev/null || { echo "bench-count: valgrind is missing" >&2; exit 1; }
cargo build --quiet --release --locked -p partisan-micro --bin partisan-count
binary=${CARGO_TARGET_DIR:-target}/release/partisan-count

count() { # path -> instructions per message
    local out messages instructions
    out=$(mktemp -d)
    messages=$(valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" --collect-atstart=no \
        --toggle-collect='*counted*' "$binary" "$1" 2>"$out/log") || { cat "$out/log" >&2; exit 1; }
    instructions=$(sed -n 's/^==[0-9]*== Collected : //p' "$out/log")
    rm -rf "$out"
    awk -v i="$instructions" -v m="$messages" 'BEGIN { printf "%.0f", i / m }'
}

made_with="# $(rustc --version), $(uname -m)"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
{
    echo "# Instructions per message; see bench/callgrind.sh"
    echo "$made_with"
} >"$results"
status=0
if [ "${1:-}" != --update ] && [ -e "$base" ] && [ "$(sed -n 2p "$base")" != "$made_with" ]; then
    echo "bench-count: the base was made with another compiler ($(sed -n 2p "$base"))" >&2
fi
printf '%-22s %12s %12s %8s\n' path instructions base change
for path in $("$binary"); do
    now=$(count "$path")
    printf '%s\t%s\n' "$path" "$now" >>"$results"
    was=$(awk -F'\t' -v p="$path" '$1 == p { print $2 }' "$base" 2>/dev/null || true)
    if [ -z "$was" ]; then
        printf '%-22s %12s %12s\n' "$path" "$now" -
        continue
    fi
    printf '%-22s %12s %12s %+7.1f%%' "$path" "$now" "$was" \
        "$(awk -v a="$now" -v b="$was" 'BEGIN { print (a / b - 1) * 100 }')"
    if [ "${1:-}" != --update ] && [ $((now * 100)) -gt $((was * (100 + tolerance))) ]; then
        printf '  DEARER'
        status=1
    fi
    printf '\n'
done
if [ "${1:-}" = --update ]; then
    cp "$results" "$base"
    echo "bench-count: $base is written"
fi
exit "$status"
