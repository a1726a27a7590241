#!/bin/bash
# bootstrap.sh TREE SUITE MIRROR PACKAGE…
#
# Makes a Debian tree at TREE: the smallest base, then PACKAGE… without recommended ones. An empty MIRROR means
# debootstrap's own. Runs as root. Everything that it mounts or starts lives in namespaces of its own, so that a kill
# at any point leaves plain files only.
set -euo pipefail

if [ "${INSIDE:-}" != yes ]; then
  exec env INSIDE=yes unshare --mount --pid --fork --kill-child --propagation private bash "$0" "$@"
fi

tree=$1 suite=$2 mirror=$3
shift 3

debootstrap --variant=minbase --include=ca-certificates "$suite" "$tree" ${mirror:+"$mirror"}

# No daemon starts at install: whoever runs the tree starts what it wants.
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 755 "$tree/usr/sbin/policy-rc.d"

cat >"$tree/etc/apt/apt.conf.d/90small" <<'X'
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Retries "5";
X
cat >"$tree/etc/dpkg/dpkg.cfg.d/90small" <<'X'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
X

mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
# The tree's own copies stay empty: names and hosts are the business of what runs it.
for file in /etc/resolv.conf /etc/hosts; do
  rm -f "$tree$file"
  : >"$tree$file"
  mount --bind "$file" "$tree$file"
done

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
chroot "$tree" apt-get update -q
chroot "$tree" apt-get install -q -y "$@"
chroot "$tree" apt-get clean

# What differs from one making to the next, or must differ from one box to the next.
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*.bin "$tree"/var/cache/debconf/*-old \
  "$tree"/var/cache/ldconfig/* "$tree"/var/lib/dpkg/*-old "$tree"/var/log/*.log "$tree"/var/log/apt/* \
  "$tree"/usr/share/{man,info,locale}/* \
  "$tree"/etc/ssh/ssh_host_* "$tree"/tmp/* "$tree"/run/* "$tree/root/.cache"
find "$tree/usr/share/doc" \( -type f -o -type l \) ! -name copyright -delete
find "$tree/usr/share/doc" -mindepth 1 -type d -empty -delete
: >"$tree/etc/machine-id"
rm -f "$tree/etc/hostname"
