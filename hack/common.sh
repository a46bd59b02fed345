# Functions of the scripts in hack. Source it after `set -euo pipefail`, with $me set to the script's name.
# shellcheck shell=bash disable=SC2154

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)

# The PATH of an unprivileged user lacks the folders of nft and tc.
for place in /usr/local/sbin /usr/sbin /sbin; do
    [[ :$PATH: == *:$place:* ]] || PATH=$PATH:$place
done
export PATH

say() { echo "hack/$me: $*" >&2; }

# Sets $cache to the folder that is kept between runs. What lies there is executed: it must be the user's own.
open_cache() {
    if [[ ! ${HOME:-} ]] && HOME=$(getent passwd "$EUID" | cut -d: -f6); then
        export HOME
    fi
    if [[ ! ${PODWIRE_CACHE:-}${XDG_CACHE_HOME:-}$HOME ]]; then
        say "HOME: not set, and user $EUID has no home in passwd (set PODWIRE_CACHE to a folder)"
        return 1
    fi
    cache=${PODWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podwire}
    if ! mkdir -p -m 700 -- "$cache" || [[ ! -O $cache ]]; then
        say "$cache: not a folder of user $EUID (set PODWIRE_CACHE to one)"
        return 1
    fi
    cache=$(cd -- "$cache" && pwd)
}
open_cache

choose_python() {
    local candidate
    for candidate in ${PYTHON:-/usr/bin/python3 python3}; do
        if candidate=$(command -v -- "$candidate") &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "${PYTHON:-python3}: not Python 3.11 or newer (install one, or set PYTHON)"
    return 1
}

# Prints what is missing for a virtual environment of $1, or with --shared for a bundle: lines of "PACKAGE<tab>REASON".
lacking_python() {
    "$1" - "${2:-}" <<'CODE'
import importlib.util, os, sys, sysconfig

version = "%d.%d" % sys.version_info[:2]
if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
    print(f"python{version}-venv\t{sys.executable} has no modules venv and ensurepip")
library = os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
if "--shared" in sys.argv and (".so" not in library or not os.path.exists(library)):
    print(f"libpython{version}\t{sys.executable} has no shared library (of a Python built with --enable-shared)")
CODE
}

# Prints which of the programs, each PACKAGE:PROGRAM, are missing, in the same form.
lacking_programs() {
    local requirement
    for requirement in "$@"; do
        command -v -- "${requirement#*:}" >/dev/null ||
            printf '%s\tno %s in PATH\n' "${requirement%%:*}" "${requirement#*:}"
    done
}

# Prints what is missing to build the bundle with interpreter $1.
lacking_for_bundle() {
    lacking_python "$1" --shared
    lacking_programs binutils:objcopy binutils:objdump libc-bin:ldd libc-bin:ldconfig tar:tar gzip:gzip
}

# Prints what is missing to compile the bundle's launcher with interpreter $1.
lacking_for_launcher() {
    local compiler=${CC-cc} package library
    if [[ ! $compiler ]] || ! command -v -- "$compiler" >/dev/null; then
        printf 'gcc\tno C compiler\n'
        return
    fi
    "$1" - <<'CODE'
import os, platform, sys, sysconfig

archive = os.path.join(sysconfig.get_config_var("LIBPL"), sysconfig.get_config_var("LIBRARY"))
header = os.path.join(sysconfig.get_path("include"), "internal/pycore_runtime.h")
if sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64":
    print(f"python3.11\t{sys.executable} is not CPython 3.11 on x86-64, with which alone the launcher was tried")
elif not (archive.endswith(".a") and os.path.exists(archive) and os.path.exists(header)):
    print(f"libpython3.11-dev\t{sys.executable} has no static library and headers")
CODE
    for package in zlib1g-dev:libz.a libexpat1-dev:libexpat.a; do
        library=${package#*:}
        [[ $("$compiler" -print-file-name="$library") == /* ]] || printf '%s\tno %s\n' "${package%%:*}" "$library"
    done
}

# Prints what is missing to make a machine of namespaces.
lacking_for_machines() {
    lacking_programs iproute2:ip iproute2:tc nftables:nft util-linux:unshare util-linux:nsenter mount:mount
}

is_debian() { grep -Eqs '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release && command -v apt-get >/dev/null; }

# Installs what the function or command "$@" prints as missing, as root on Debian or Ubuntu. Otherwise lists all in one
# message.
require() {
    local lacking
    lacking=$("$@")
    if [[ $lacking && $EUID == 0 ]] && is_debian; then
        mapfile -t packages < <(cut -f1 <<<"$lacking" | sort -u)
        say "installing ${packages[*]}"
        { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${packages[@]}"; } >&2 || true
        lacking=$("$@")
    fi
    if [[ $lacking ]]; then
        say "missing Debian packages (install them and run this again):"
        sed 's/^/  /; s/\t/: /' <<<"$lacking" >&2
        return 1
    fi
}

# Prints the packages that pyproject.toml lists in the groups $2...; `dependencies` are podwire's. $1: an interpreter.
packages_of() {
    local python=$1
    shift
    "$python" - "$root/pyproject.toml" "$@" <<'CODE'
import sys, tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
groups = project["dependency-groups"] | {"dependencies": project["project"]["dependencies"]}
print(*[package for group in sys.argv[2:] for package in groups[group]], sep="\n")
CODE
}

# Prints the folder of a virtual environment of python $1 with the packages after it, pinned by hack/constraints.txt.
# It is created once. Callers read its output, where bash goes on after an error: each command depends on that before.
environment() {
    local python=$1 key venv
    shift
    key=$({ "$python" -VV; echo "$python" "$@"; cat "$root/hack/constraints.txt"; } | sha256sum | cut -c1-16)
    venv=$cache/venv-$key
    (
        flock 9
        if [[ ! -f $venv/ready ]]; then
            say "making $venv"
            rm -rf -- "$venv" &&
                "$python" -m venv "$venv" &&
                "$venv/bin/python" -m pip --disable-pip-version-check -q install -c "$root/hack/constraints.txt" "$@" >&2 &&
                touch "$venv/ready"
        fi
    ) 9>"$cache/lock" && echo "$venv"
}

# Runs a command in its own process group and kills that when this script ends. A signal is handled at once.
attend() {
    local status=0
    trap 'end_attended; end_with' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    set -m
    "$@" &
    attended=$!
    set +m
    wait "$attended" || status=$?
    end_attended  # processes that it has left
    attended=
    return "$status"
}

# Cleanup of a script that attends a command; scripts override it.
end_with() { :; }

# Waits: the kernel takes a while to end all processes of a namespace.
end_attended() {
    local _
    [[ ${attended:-} ]] || return 0
    kill -KILL -- "-$attended" 2>/dev/null || return 0
    for _ in {1..50}; do
        kill -0 -- "-$attended" 2>/dev/null || break
        sleep 0.1
    done
}
