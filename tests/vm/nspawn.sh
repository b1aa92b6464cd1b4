#!/bin/bash
# Boots TREE under PAYLOAD in a container: nspawn.sh TREE PAYLOAD FOLDER. Runs in a mount namespace of its own (unshare -m).
set -eu
tree=$1 payload=$2 folder=$3
root=$folder/root

mount --make-rprivate /
# A hybrid cgroup layout (systemd 232 and before, some containers) is of no use inside: give it plain version 2.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Nothing removes the groups of a machine that has ended: its successor does.
for old in /sys/fs/cgroup/sysctr-test-*; do
    if [ -e "$old" ] && [ ! -e "/proc/${old##*-}" ]; then find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
done
group=/sys/fs/cgroup/sysctr-test-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"

mkdir -p "$root" "$folder"/{upper,work,payload-upper,payload-work}
mount -t overlay overlay -o "lowerdir=$payload/root:$tree,upperdir=$folder/upper,workdir=$folder/work" "$root"
# /var is on the host's own file system: an overlay cannot be the upper layer of the overlays that sysctr makes in there.
[ -d "$folder/var" ] || cp -a "$tree/var" "$folder/var"
mount --bind "$folder/var" "$root/var"
mount -t overlay overlay \
    -o "lowerdir=$payload,upperdir=$folder/payload-upper,workdir=$folder/payload-work" "$root/srv/payload"

# Once, before its first boot.
if [ -s "$folder/prepare.sh" ]; then
    . "$folder/prepare.sh"
    : >"$folder/prepare.sh"
fi

exec script -qefc "exec systemd-nspawn --quiet --register=no --keep-unit -D $root -b --machine=vm --private-network \
    --capability=all --system-call-filter='@keyring bpf' --resolv-conf=off --timezone=off --console=interactive" /dev/null
