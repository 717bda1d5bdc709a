#!/bin/sh
# What a machine's firmware, kernel and cloud-init would have done; then systemd.
set -eu

# Docker mounts these read-only; in a cgroup namespace of our own they are ours to write.
for path in /proc/sys /sys/fs/cgroup /sys/fs/cgroup/*; do
  if mountpoint --quiet "$path"; then mount -o remount,bind,rw "$path" 2>/dev/null || true; fi
done
mount --make-rshared / || true
# In a container systemd leaves the disks of /etc/fstab alone.
mount --all 2>/dev/null || true
[ -e /dev/kmsg ] || ln -s /dev/null /dev/kmsg

ssh-keygen -A >/dev/null
install --directory --owner admin --group admin --mode 0700 /home/admin/.ssh
printf '%s\n' "$AUTHORIZED_KEY" > /home/admin/.ssh/authorized_keys
chown admin:admin /home/admin/.ssh/authorized_keys

exec /sbin/init
