#!/bin/sh
# Installs what building and testing need and this system does not have, and says what. Quiet when nothing is missing.
set -eu

if command -v apt-get >/dev/null; then
    wanted="build-essential pkg-config libostree-dev libseccomp-dev ostree
        mmdebstrap debian-archive-keyring qemu-system-x86 qemu-utils e2fsprogs xfsprogs btrfs-progs mount systemd-container
        docker-registry buildah umoci skopeo podman crun runc apache2-utils jq openssl util-linux bsdutils curl strace procps systemd busybox-static rpm iproute2 ca-certificates"
    missing=
    for package in $wanted; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
        esac
    done
    install="apt-get install -y --no-install-recommends"
    refresh="apt-get update"
elif command -v dnf >/dev/null; then
    wanted="gcc glibc-static make pkgconf-pkg-config ostree-devel libseccomp-devel ostree
        mmdebstrap debian-keyring qemu-system-x86-core qemu-img e2fsprogs xfsprogs btrfs-progs systemd-container
        docker-distribution buildah umoci skopeo podman crun runc httpd-tools jq openssl util-linux util-linux-script curl strace binutils procps-ng systemd busybox rpm-build iproute ca-certificates"
    missing=
    for package in $wanted; do
        rpm -q --quiet --whatprovides "$package" || missing="$missing $package"
    done
    install="dnf install -y --setopt=install_weak_deps=False"
    refresh=true
else
    echo "tests/deps.sh knows Debian (apt-get) and Fedora (dnf) only: install by hand what it lists" >&2
    exit 1
fi

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing, and only root can install them:$missing" >&2
    exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # the list is meant to be split
if ! { $refresh && $install $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    echo "could not install:$missing" >&2
    exit 1
fi
