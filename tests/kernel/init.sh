#!/bin/busybox sh
# shellcheck shell=dash
# init.sh - the first process of the machine that run.sh starts: mounts what is needed, runs checks.sh, and
# says how it ended in a line of its own.
/bin/busybox mkdir -p /busybox /dev /proc /sys /run /tmp
/bin/busybox --install -s /busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up
cd /sluice || poweroff -f
# shellcheck disable=SC2046 # words
bash tests/kernel/checks.sh $(cat /sections)
echo "checks ended with $?"
poweroff -f
