#!/bin/bash
# Runs each bundle by each runtime, in the machine: drive.sh FOLDER.
#
#   FOLDER/probe                    the program in the bundles
#   FOLDER/configs/NAME.json        what to run; NAME.tree beside it: the root file system, if not the common one
#   FOLDER/run/NAME/                the bundle while it runs, made anew for each runtime
#   FOLDER/results/NAME.RUNTIME.*   out, err, code, changed (what is in the root file system afterwards and was not before)
set -u
umask 022
export work=$1 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$work"

template() {
    mkdir -p tree/{bin,data/below,dev,etc,proc,run,sys,tmp,var/empty,markers,usr/bin}
    cp probe tree/probe && ln -s ../probe tree/bin/probe
    echo text >tree/etc/file && chmod 755 tree tree/probe && chmod 1777 tree/tmp
    echo '#!/no/such/interpreter' >tree/bin/broken && echo text >tree/bin/garbage && chmod 755 tree/bin/{broken,garbage}
    cp probe tree/bin/forbidden && chmod 600 tree/bin/forbidden
    ln -s /data tree/to-data && ln -s ../../../../../../etc tree/to-host && ln -s loop tree/loop && ln -s /probe tree/etc/to-probe
    mkfifo tree/etc/fifo
}

# What bundles bind: a folder with a file and another file system below, which has one of its own.
sources() {
    mkdir -p source/below && echo host >source/file && chmod 644 source/file
    mount -t tmpfs -o mode=755 tmpfs source/below && mkdir source/below/deep && mount -t tmpfs tmpfs source/below/deep
    mkdir -p shared && mount --bind shared shared && mount --make-shared shared
    chown 1000:1000 source/file
}

# Namespaces to join, held by a process that lives as long as this one.
namespaces() {
    local kind holder
    mkdir -p ns
    setpriv --pdeathsig KILL unshare --net --uts --ipc --cgroup --time --pid --fork --kill-child sleep infinity &
    holder=$!
    until [ -r "/proc/$holder/ns/pid_for_children" ] && [ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ] &&
        readlink "/proc/$holder/ns/pid_for_children" >/dev/null; do sleep 0.01; done
    for kind in net uts ipc cgroup pid_for_children time_for_children; do
        touch "ns/${kind%%_*}" && mount --bind "/proc/$holder/ns/$kind" "ns/${kind%%_*}"
    done
    setpriv --pdeathsig KILL unshare --user sleep infinity &
    holder=$!
    while [ "$(readlink "/proc/$holder/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
    echo 0 100000 65536 >"/proc/$holder/uid_map" && echo 0 100000 65536 >"/proc/$holder/gid_map"
    touch ns/user && mount --bind "/proc/$holder/ns/user" ns/user
    for kind in net uts ipc cgroup pid time user; do
        echo "$kind $(stat -L -c %i "ns/$kind")"
    done >results/given
}

run_one() {
    local name=$1 runtime command bundle=run/$1 result tree=tree
    [ ! -e "configs/$name.tree" ] || tree=$(cat "configs/$name.tree")
    for runtime in sysctr crun runc; do
        result=results/$name.$runtime
        rm -rf --one-file-system "$bundle" && mkdir -p "$bundle/markers" && chmod 777 "$bundle/markers"
        cp -al "$tree" "$bundle/rootfs" && cp "configs/$name.json" "$bundle/config.json"
        [ "$tree" = tree ] || cp probe "$bundle/rootfs/probe"
        # For the control: ours is told something else than the others.
        [ "$runtime" != sysctr ] || [ ! -e take-from-ours ] || sed -i "s/\"$(cat take-from-ours)\",//g" "$bundle/config.json"
        (cd "$bundle/rootfs" && find . -xdev -printf '%P %y %m %U %G\n' | LC_ALL=C sort) >"$bundle/before"
        # What systemd gives a service as standard input, but of this one alone: what becomes of it is looked at.
        mknod -m 666 "$bundle/null" c 1 3
        case $runtime in
        sysctr) command="/usr/libexec/sysctr/sysctr-runtime run $work/$bundle --wait" ;;
        # A root of its own each time: crun keeps the filters there that it compiled, and takes one for another.
        *) command="$runtime --root /run/differential/$name run --bundle $work/$bundle d-$name" ;;
        esac
        # A terminal is the runtime's own, on its standard streams. Elsewhere: a descriptor that is nobody's business.
        if grep -q '"terminal":true' "configs/$name.json"; then
            timeout -k 1 120 env -i PATH="$PATH" TERM=dumb script -qec "umask 027; stty rows 30 cols 100; exec $command" /dev/null \
                </dev/null >"$result.out" 2>"$result.err"
        else
            # shellcheck disable=SC2086 # the command is meant to be split
            (umask 027 && trap '' USR1 && timeout -k 1 120 env -i PATH="$PATH" $command <"$bundle/null" >"$result.out" 2>"$result.err" 7</etc/hostname)
        fi
        echo $? >"$result.code"
        # As the unit's ExecStopPost= does it.
        [ "$runtime" != sysctr ] || ! grep -q poststop "$bundle/config.json" ||
            (umask 027 && "${command%% run *}" poststop "$work/$bundle" </dev/null >>"$result.err" 2>&1)
        [ "$runtime" = sysctr ] || $runtime --root "/run/differential/$name" delete --force "d-$name" >/dev/null 2>&1
        rm -rf "/run/differential/$name"
        (cd "$bundle/rootfs" && find . -xdev -printf '%P %y %m %U %G\n' | LC_ALL=C sort) |
            LC_ALL=C comm -3 "$bundle/before" - >"$result.changed"
        stat -c '%a %u:%g' "$bundle/null" >"$result.null"
        for marker in "$bundle/markers"/*; do
            [ ! -f "$marker" ] || cp "$marker" "$result.marker.${marker##*/}"
        done
        grep -o " /$work[^ ]*/run/$name[^ ]*" /proc/self/mountinfo >"$result.left" || rm "$result.left"
        rm -rf --one-file-system "$bundle"
    done
}
export -f run_one

mkdir -p results run
template && sources && namespaces || exit 1
./probe >results/host </dev/null
for config in configs/*.json; do
    config=${config##*/}
    echo "${config%.json}"
done | xargs -P 2 -I NAME bash -c 'run_one NAME'
kill $(jobs -p) 2>/dev/null
umount source/below/deep source/below shared
umount ns/*
exit 0
