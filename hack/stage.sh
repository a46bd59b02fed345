# Functions of the scripts that show podwire at work in namespaces of their own. Source it after common.sh, with $script set
# to the script's path and $pause and $keep to its options.
# shellcheck shell=bash disable=SC2154

step="Preparing"
tell_end() { (($1 == 0)) || say "failed (status $1) in the step: $step"; }

# Starts the first process of new namespaces: when it ends, for whatever reason, the kernel ends all others in there. It ends
# when this script does, with --keep by a signal alone. Sets `enter` to the command that enters the namespaces.
start_machine() {
    local flags=-mnpf user=() waiting=(cat)
    ((EUID == 0)) || { flags=-Urmnpf user=(--user --preserve-credentials); }
    [[ ! $keep ]] || waiting=(sleep infinity)
    unshare "$flags" true 2>/dev/null ||
        { say "unshare $flags: not permitted (run as root, or allow unprivileged user namespaces)"; exit 1; }
    coproc MACHINE {
        exec setsid unshare "$flags" --kill-child \
            bash -c 'read -r number _ </proc/self/stat; echo "$number"; exec "$@"' bash "${waiting[@]}" 2>/dev/null
    }
    machine=$MACHINE_PID machine_input=${MACHINE[1]}
    read -r number <&"${MACHINE[0]}"
    enter=(nsenter "--target=$number" "${user[@]}" --root --mount --net --pid)
}

end_with() {
    [[ ! ${relay:-} ]] || kill "$relay" 2>/dev/null || true
    [[ ${machine:-} && ! ${kept:-} ]] || return 0
    if [[ $keep ]]; then kill -KILL "$machine"; else exec {machine_input}>&-; fi
    wait "$machine" 2>/dev/null || true
}

# The part outside: builds the bundle, then runs the script again in new namespaces, and ends. Inside it returns.
enter_stage() {
    if [[ ${PODWIRE_STAGE_ENTER:-} ]]; then
        trap 'tell_end $?' EXIT
        return
    fi
    trap 'tell_end $?; end_with' EXIT
    require lacking
    archive=
    if [[ ${PODWIRE_BUNDLE:-} ]]; then
        PODWIRE_BUNDLE=$(readlink -f -- "$PODWIRE_BUNDLE")
    else
        step="Building the bundle (hack/build)"
        archive=$("$root/hack/build")
    fi
    step="Creating namespaces"
    start_machine
    exec 3<&0 4</dev/null
    if [[ $pause ]]; then  # what is attended is in the background, where it cannot read from a terminal
        exec 4< <(exec cat <&3)
        relay=$!
    fi
    export PODWIRE_STAGE_ARCHIVE=$archive PODWIRE_STAGE_ENTER="${enter[*]}" PODWIRE_STAGE_REMOVE="kill -KILL $number"
    attend "${enter[@]}" bash "$script" "$@" <&4
    kept=$keep
    exit
}

# Inside: hides the folders of the runtime and of host-local under a tmpfs, which is removed with the namespaces, and unpacks
# the bundle. Sets PODWIRE_BUNDLE.
furnish_stage() {
    local folder
    [[ ! $PODWIRE_STAGE_ARCHIVE ]] || exec 7<"$PODWIRE_STAGE_ARCHIVE"  # before mounts hide its folder
    for folder in /run /var/lib "$@"; do mount -t tmpfs tmpfs "$folder"; done
    mkdir -p /run/netns
    if [[ $PODWIRE_STAGE_ARCHIVE ]]; then
        PODWIRE_BUNDLE=/run/bundle
        mkdir "$PODWIRE_BUNDLE"
        tar -xz -C "$PODWIRE_BUNDLE" <&7
        exec 7<&-
    fi
    cd /
    ip link set lo up
}

bold='' colour='' plain=''
if [[ -t 1 && ! ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' colour=$'\e[36m' plain=$'\e[0m'
fi

title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

step() {
    step=$1
    title "$step"
    [[ $pause ]] || return 0
    echo "(press Enter)"
    read -r _ || true
}

# Shows a command as one types it, behind a prompt.
show() { printf '%s%s %s%s\n' "$colour" "${2:-$}" "$1" "$plain"; }

# Runs what is shown.
run() {
    show "$1"
    eval "$1"
}

# Writes stdin to a file, and shows it.
write() {
    show "cat >$1 <<'END'"
    tee "$1"
    printf '%sEND%s\n' "$colour" "$plain"
}
