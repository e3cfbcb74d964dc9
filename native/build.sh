#!/bin/sh
# Builds the NIF and puts it at priv/partisan_nif.so. rebar3 (and mix, through rebar3) runs this before it
# compiles the application, whether partisan is the project itself, a checkout or a dependency.
#
#   CARGO_TARGET_DIR     honoured, as by cargo itself
#   PARTISAN_NIF_SKIP=1  builds nothing: priv/partisan_nif.so comes from elsewhere
set -eu

if [ "${PARTISAN_NIF_SKIP:-}" = 1 ]; then
    exit 0
fi

cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null 2>&1; then
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    cat >&2 <<MESSAGE
partisan: cargo is not on PATH, so the NIF cannot be built.
partisan: Install Rust $wanted or later (https://rustup.rs), or put a ready priv/partisan_nif.so in place and
partisan: set PARTISAN_NIF_SKIP=1.
MESSAGE
    exit 1
fi

# cargo itself names the library: its place depends on target directory, target triple and configuration.
artifacts=$(cargo build --release --locked -p partisan_nif --message-format=json-render-diagnostics)
library=$(printf '%s\n' "$artifacts" | grep -o '"[^"]*/libpartisan_nif\.\(so\|dylib\)"' | tail -n 1 | tr -d '"')
if [ -z "$library" ]; then
    echo "partisan: cargo built no libpartisan_nif" >&2
    exit 1
fi

# A running VM may have the old file mapped: it is replaced by renaming, never written into.
mkdir -p priv
if ! cmp -s "$library" priv/partisan_nif.so; then
    fresh=priv/.partisan_nif.so.$$
    trap 'rm -f "$fresh"' EXIT
    cp "$library" "$fresh"
    mv -f "$fresh" priv/partisan_nif.so
fi
