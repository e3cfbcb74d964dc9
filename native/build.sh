#!/bin/sh
# Builds the native library into priv/. Placeholder until the library exists.
set -eu
cd "$(dirname "$0")/.."
mkdir -p priv
if [ -n "${PARTISAN_NIF_SKIP:-}" ] || ! command -v cargo >/dev/null 2>&1; then
    exit 0
fi
exit 0
