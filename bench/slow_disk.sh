#!/bin/bash
# Runs a command whose reads and writes of one disk are held to a rate by the kernel: for what reads without io.h or
# writes (packing, other programs). For a streamed model `stream-bench --disk-rate` is the better slow disk: Linux hands
# out the bytes of 100 ms at once and then none, so this one forgives every shorter pause (docs/MEASURED.md).
#
#   bench/slow_disk.sh GB_PER_S FILE_ON_THE_DISK COMMAND...
#
# Needs root and cgroup v1's blkio controller (elsewhere: systemd-run --scope -p "IOReadBandwidthMax=DEVICE BYTES"). What
# is written through the page cache escapes: flushed by the kernel, not by the command. Makes a group and removes it.
set -u
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
}
fail() {
    echo "slow_disk.sh: $*" >&2
    exit 1
}
[ $# -ge 3 ] || usage
root=/sys/fs/cgroup/blkio group=/sys/fs/cgroup/blkio/slow_disk.$$
rate=$(awk -v r="$1" 'BEGIN { printf "%.0f", r * 1e9 }') file=$2
shift 2
[ "$rate" -gt 0 ] || usage
[ -w "$root/cgroup.procs" ] || fail "needs root and cgroup v1's blkio controller at $root"
[ -e "$file" ] || fail "$file: no such file"
part=$(df --output=source "$file" | tail -1)
disk=$(lsblk -ndo PKNAME "$part" 2>/dev/null | grep . || basename "$part")
number=$(cat "/sys/class/block/$disk/dev" 2>/dev/null) || fail "$part: not a disk"
mkdir "$group" || fail "$group cannot be made"
trap 'rmdir "$group"' EXIT
for what in read write; do
    echo "$number $rate" >"$group/blkio.throttle.${what}_bps_device" || fail "the limit is refused"
done
(
    sh -c 'echo $PPID' >"$group/cgroup.procs" || exit 1
    exec "$@"
)
