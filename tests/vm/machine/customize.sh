#!/bin/sh
# Turns a fresh tree ($1) into the machine that the scenarios run on. Called by mmdebstrap once the packages are in.
set -eu
root=$1
here=$(dirname "$0")

cp -a --no-preserve=ownership "$here/root/." "$root/"
echo vm >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 vm\n' >"$root/etc/hosts"
mkdir -p "$root/var/log/journal" "$root/srv/payload" "$root/var/www"

# The kernel mounts the root by itself, so no initrd: but it wants its modules indexed.
rm -f "$root"/boot/initrd.img-* "$root"/initrd.img* "$root"/vmlinuz*
for version in "$root"/usr/lib/modules/*; do
    chroot "$root" depmod "$(basename "$version")"
done
chroot "$root" systemd-machine-id-setup

systemctl --root="$root" enable vm-agent.service docker-registry.service systemd-networkd.service
systemctl --root="$root" disable systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer 2>/dev/null || true
systemctl --root="$root" mask getty@tty1.service serial-getty@ttyS0.service console-getty.service
