#!/usr/bin/env bash
# Follows the README as a newcomer does: writes its files, types its commands, checks what comes out.
#
# The repository's address is the README's own; git is told to find this working tree there, changes that are not
# committed included. Everything else that it needs is on this machine, and nothing is written outside of a temporary
# directory but what cargo keeps.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
address=https://github.com/partisan-beam/partisan

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# What a clone from the address gives.
mkdir "$work/repository"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$work/repository"
git init -q -b main "$work/repository"
# The same files make the same commit, so that cargo finds again what it has built of it.
export GIT_AUTHOR_DATE=2000-01-01T00:00:00Z GIT_COMMITTER_DATE=2000-01-01T00:00:00Z
(cd "$work/repository" && git add -A && git -c user.name=test -c user.email=test@localhost -c commit.gpgsign=false \
    commit -q -m "The working tree")

# The sources of a clone are as old as these, and have been built: cargo need not do it again. The address is looked
# for with and without `.git`.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$top/target}
sh native/build.sh
mkdir -p "$work/template/hooks"
cat >"$work/template/hooks/post-checkout" <<'HOOK'
#!/bin/sh
git ls-files -z | xargs -0 touch -d 2000-01-01
HOOK
chmod +x "$work/template/hooks/post-checkout"
export GIT_TEMPLATE_DIR=$work/template GIT_CONFIG_GLOBAL=$work/gitconfig GIT_CONFIG_NOSYSTEM=1
git config --global "url.file://$work/repository.insteadOf" "$address.git"
git config --global --add "url.file://$work/repository.insteadOf" "$address"

# No caches but cargo's. The README's Rust project takes the versions that this one has locked, and its profile, so
# that what they share is not built again.
export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} HOME=$work/home
mkdir -p "$HOME" "$work/readme/hello_rust" "$work/readme/hello_member"
export REBAR_CACHE_DIR=$work/home/rebar3 MIX_HOME=$work/home/mix MIX_REBAR3
MIX_REBAR3=$(command -v rebar3)
export CARGO_NET_GIT_FETCH_WITH_CLI=true CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=1
cp Cargo.lock "$work/readme/hello_rust/"
cp Cargo.lock "$work/readme/hello_member/"

echo "== without cargo"
path=
IFS=: read -r -a dirs <<<"$PATH"
for dir in "${dirs[@]}"; do
    if [ -e "$dir/cargo" ]; then
        copy=$(mktemp -d -p "$work")
        ln -s "$dir"/* "$copy"
        rm "$copy/cargo"
        dir=$copy
    fi
    path=$path:$dir
done
mkdir "$work/no_cargo"
echo "{deps, [{partisan, {git, \"$address.git\", {branch, \"main\"}}}]}." >"$work/no_cargo/rebar.config"
if (cd "$work/no_cargo" && PATH=${path#:} rebar3 compile) >"$work/no_cargo/log" 2>&1 ||
    ! grep -F "cargo is not on PATH" "$work/no_cargo/log"; then
    cat "$work/no_cargo/log"
    echo "quick start: without cargo the build has to fail and say why" >&2
    exit 1
fi

echo "== README.md, docs/rust.md"
# A name server of its own, and ports that nobody has, below those that systems give to connections: this disturbs no
# other nodes, and they don't disturb it.
read -r -a ports < <(erl -noshell -boot no_dot_erlang -eval '
    Free = fun Free() ->
        case gen_tcp:listen(9999 + rand:uniform(20000), [{ip, {127, 0, 0, 1}}]) of
            {ok, Socket} -> Socket;
            {error, _} -> Free()
        end
    end,
    Sockets = [Free() || _ <- lists:seq(1, 6)],
    [io:format("~b ", [element(2, inet:port(Socket))]) || Socket <- Sockets],
    io:nl(), halt().')
export ERL_EPMD_PORT=${ports[0]} ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_SECONDS=0
epmd &
started+=($!)
sed "s/\b4001\b/${ports[1]}/g; s/\b4002\b/${ports[2]}/g; s/\b4003\b/${ports[3]}/g; s/\b4004\b/${ports[4]}/g
    s/\b4005\b/${ports[5]}/g" README.md docs/rust.md >"$work/README.md"
escript scripts/quick_start.escript "$work/README.md" "$work/readme"
