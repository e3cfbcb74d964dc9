#!/usr/bin/env bash
# Installs what is missing of the tools that the build needs.
#
#   scripts/bootstrap.sh build   Erlang, rebar3 and a C linker: enough for `make build` and `make demo`
#   scripts/bootstrap.sh bench   and what `make bench` needs: ip, setpriv
#   scripts/bootstrap.sh test    and what `make test` needs: Common Test, Dialyzer, Elixir, ...
#
# Silent and quick when nothing is missing. Rust is not installed, only looked for.
set -euo pipefail

level=${1:-test}
missing=()

command_from() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

application_from() { # OTP application, Debian package
    compgen -G "$otp_lib/$1-*/ebin" >/dev/null || missing+=("$2")
}

command_from make make
command_from cc gcc
[ -e /usr/include/stdlib.h ] || [ "$(uname)" != Linux ] || missing+=(libc6-dev)
command_from erl erlang-base
command_from rebar3 rebar3

otp_lib=$(command -v erl >/dev/null 2>&1 &&
    erl -noshell -boot no_dot_erlang -eval 'io:put_chars(code:lib_dir()), halt().' || echo /nowhere)
application_from crypto erlang-crypto
application_from public_key erlang-public-key
application_from ssl erlang-ssl
[ -e "$otp_lib/../usr/include/erl_nif.h" ] || missing+=(erlang-dev)

case $level in
build) ;;
bench)
    command_from ip iproute2
    command_from setpriv util-linux
    ;;
test)
    application_from common_test erlang-common-test
    application_from eunit erlang-eunit
    application_from dialyzer erlang-dialyzer
    application_from tools erlang-tools
    application_from xmerl erlang-xmerl
    application_from syntax_tools erlang-syntax-tools
    application_from parsetools erlang-parsetools
    application_from runtime_tools erlang-runtime-tools
    application_from sasl erlang-base
    application_from proper erlang-proper
    command_from mix elixir
    command_from ip iproute2
    # Stock OTP of other releases: scripts/otp.sh.
    command_from debootstrap debootstrap
    command_from unshare util-linux
    ;;
*)
    echo "bootstrap: unknown level '$level': build, bench or test" >&2
    exit 2
    ;;
esac

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "bootstrap: this is not a Debian system; please install (Debian's names): ${missing[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=()
    elif command -v sudo >/dev/null 2>&1; then
        as_root=(sudo)
    else
        echo "bootstrap: neither root nor sudo; as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "bootstrap: installing ${missing[*]}"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! {
        "${as_root[@]}" apt-get update -qq &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1; then
        cat "$log" >&2
        echo "bootstrap: apt-get could not install: ${missing[*]}" >&2
        exit 1
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
    echo "bootstrap: cargo is not on PATH; install Rust $wanted or later: https://rustup.rs" >&2
    exit 1
fi
if [ "$level" = test ]; then
    for tool in fmt clippy; do
        if ! cargo "$tool" --version >/dev/null 2>&1; then
            echo "bootstrap: cargo $tool is missing: rustup component add rustfmt clippy" >&2
            exit 1
        fi
    done
fi
