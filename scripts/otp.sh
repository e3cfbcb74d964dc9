#!/usr/bin/env bash
# Makes a stock Erlang/OTP of another release to test against, and runs its programs.
#
#   scripts/otp.sh 27               makes it if it isn't there; prints a command prefix
#   scripts/otp.sh find 27          prints it if the release is there, makes nothing
#   scripts/otp.sh run 27 erl ...   the prefix at work: runs erl of that release
#
# A release that the host's own `erl` has costs nothing. Another one is a minimal Debian with its
# Erlang packages in $PARTISAN_OTP_DIR (default ~/.cache/partisan-otp), made once, and run by
# chroot, as root. Processes, network and time are the host's; so are /tmp, the repository and the
# directories in $PARTISAN_OTP_BIND (colon-separated). The mounts live in a mount namespace of the
# program's own: they are gone when it ends, however it ends, and no process stands between: the
# pid is that of the program.
set -euo pipefail

packages=erlang-base,erlang-asn1,erlang-crypto,erlang-public-key,erlang-ssl,erlang-runtime-tools,erlang-tools,erlang-inets
mirror=${PARTISAN_DEBIAN_MIRROR:-http://deb.debian.org/debian}
cache=${PARTISAN_OTP_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/partisan-otp}
repository=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    echo "otp: $*" >&2
    exit 1
}

suite_of() {
    case $1 in
    25) echo bookworm ;;
    27) echo trixie ;;
    29) echo forky ;;
    *) fail "unknown release '$1': 25, 27 or 29" ;;
    esac
}

# What `erl` of a folder ("" is the host) says it is.
release_in() {
    local lib
    for lib in "$1"/usr/lib/erlang/releases/[0-9]*/OTP_VERSION; do
        [ -e "$lib" ] && basename "$(dirname "$lib")" && return
    done
    [ -n "$1" ] || ! command -v erl >/dev/null 2>&1 ||
        erl -noshell -boot no_dot_erlang -eval 'io:put_chars(erlang:system_info(otp_release)), halt().'
}

is_host() { # release
    [ "$(release_in "")" = "$1" ]
}

make_folder() { # release
    local release=$1 suite folder=$cache/$1 half=$cache/$1.half script log
    suite=$(suite_of "$release")
    [ "$(id -u)" -eq 0 ] || fail "OTP $release needs root, to make $folder and to chroot into it"
    mkdir -p "$cache"
    exec 9>"$cache/$release.lock"
    flock 9
    [ ! -d "$folder" ] || return 0
    command -v debootstrap >/dev/null 2>&1 || {
        log=$(apt-get update -qq 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                debootstrap debian-archive-keyring 2>&1) ||
            fail "debootstrap could not be installed:"$'\n'"$log"
    }
    # An older debootstrap knows newer suites by the script of sid.
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    echo "otp: making OTP $release from Debian $suite in $folder" >&2
    rm -rf --one-file-system "$half"
    log=$cache/$release.log
    if ! debootstrap --variant=minbase --include="$packages" "$suite" "$half" "$mirror" "$script" \
        >"$log" 2>&1 9>&-; then
        tail -n 20 "$log" "$half/debootstrap/debootstrap.log" >&2 2>/dev/null || true
        rm -rf --one-file-system "$half"
        fail "Debian $suite could not be fetched from $mirror; the whole log: $log"
    fi
    [ "$(release_in "$half")" = "$release" ] ||
        fail "Debian $suite has OTP '$(release_in "$half")' now, not $release"
    # Only what Erlang needs: neither downloads nor documents.
    rm -rf "$half"/var/cache/apt/* "$half"/var/lib/apt/lists/* "$half"/usr/share/{doc,man,locale}
    # Whole only under its own name.
    mv "$half" "$folder"
}

# Within the mount namespace: mounts, and becomes the program.
enter() { # folder, program, argument...
    local folder=$1 bound directory=$PWD
    shift
    mount --rbind /proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    for bound in /etc/hosts /etc/resolv.conf; do
        [ ! -e "$bound" ] || { touch "$folder$bound" && mount --bind "$bound" "$folder$bound"; } 2>/dev/null || true
    done
    IFS=: read -ra more <<<"${PARTISAN_OTP_BIND:-}"
    for bound in /tmp "$repository" ${more[@]+"${more[@]}"}; do
        mkdir -p "$folder$bound"
        mount --rbind "$bound" "$folder$bound"
    done
    [ -d "$folder$directory" ] || directory=/
    export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
    exec chroot "$folder" /bin/sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
}

case ${1:-} in
find)
    release=${2:-}
    suite_of "$release" >/dev/null
    is_host "$release" && echo env && exit
    [ -d "$cache/$release" ] || fail "there is no $cache/$release; make it: scripts/otp.sh $release"
    unshare --mount true 2>/dev/null || fail "root may run OTP $release in $cache; $(id -un) may not mount"
    echo "$repository/scripts/otp.sh run $release"
    ;;
run)
    release=${2:?usage: otp.sh run RELEASE PROGRAM [ARGUMENT...]}
    shift 2
    is_host "$release" && exec "$@"
    folder=$cache/$release
    [ -d "$folder" ] || fail "there is no $folder; make it: scripts/otp.sh $release"
    # Descriptors of the caller stay; only the view of the file system is new.
    exec unshare --mount --propagation private "$0" enter "$folder" "$@"
    ;;
enter)
    shift
    enter "$@"
    ;;
*)
    release=${1:-}
    suite_of "$release" >/dev/null
    if is_host "$release"; then
        echo env
    else
        make_folder "$release"
        echo "$repository/scripts/otp.sh run $release"
    fi
    ;;
esac
