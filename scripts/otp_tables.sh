#!/usr/bin/env bash
# Extracts the numbers of the distribution protocol from source trees of Erlang/OTP, or checks that the committed
# tables are what the trees say.
#
#   scripts/otp_tables.sh extract TREE...   writes test/otp_tables/RELEASE.txt for each
#   scripts/otp_tables.sh TREE...           compares them, and fails if one differs
#
# Debian's source packages are such trees: `apt-get source erlang`.
set -euo pipefail
tables=$(cd "$(dirname "$0")/.." && pwd)/test/otp_tables
sources=(erts/emulator/beam/dist.h erts/emulator/beam/external.h lib/kernel/include/dist.hrl)

table() { # tree
    echo "# Numbers of the distribution protocol. Written by scripts/otp_tables.sh, not by hand."
    echo "version $(tr -d '[:space:]' <"$1/OTP_VERSION")"
    (cd "$1" && sha256sum "${sources[@]}") | sed 's/^\([0-9a-f]*\)  /sha256 \1 /'
    sed -n 's/^ *DOP_\([A-Z0-9_]*\) *= *\([0-9]*\),\{0,1\}.*/op \1 \2/p' "$1/${sources[0]}"
    # What is between `#if 0` and `#endif` is history.
    sed '/^#if 0/,/^#endif/d' "$1/${sources[1]}" |
        sed -n "s/^#define \([A-Z0-9_]*\) *\('.'\|131\)\([^0-9].*\)\{0,1\}$/\1 \2/p" |
        while read -r name value; do
            [ "$value" = 131 ] || printf -v value '%d' "${value%\'}"
            echo "tag $name $value"
        done
    sed -n 's/^-define(DFLAG_\([A-Z0-9_]*\), *(\{0,1\}\(16#[0-9a-fA-F]*\)\( bsl \([0-9]*\)\)\{0,1\})*\..*/\1 \2 \4/p' \
        "$1/${sources[2]}" |
        while read -r name value shift; do
            printf 'flag %s 0x%x\n' "$name" $((value << ${shift:-0}))
        done
}

extract=
if [ "${1:-}" = extract ]; then
    extract=yes
    shift
fi
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
failed=0
for tree; do
    release=$(cut -d. -f1 "$tree/OTP_VERSION")
    if [ -n "$extract" ]; then
        mkdir -p "$tables"
        table "$tree" >"$tables/$release.txt"
        echo "$release: $(grep -c '^[oft]' "$tables/$release.txt") numbers"
    elif table "$tree" | diff "$tables/$release.txt" -; then
        echo "$release: as committed"
    else
        failed=1
    fi
done
exit $failed
