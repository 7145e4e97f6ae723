#!/bin/sh
# First program of the machine that scripts/vm-test starts.  The root file system that virtme-ng
# mounts asks the host for every byte, and most of it cannot be written.  This one is the host's
# files too, but cached, below a layer in memory: no write reaches the host.
# Arguments: CHECKOUT SNAPSHOT MODULES SECONDS SLOW CLOCK COMMAND...
set -eu

stage=${IPTTRACE_VM_STAGE-first}
if [ "$stage" = first ]; then
    mkdir -p /run/host /run/layer /run/root
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro host /run/host
    mount -t tmpfs -o size=75% layer /run/layer
    mkdir /run/layer/upper /run/layer/work
    mount -t overlay -o xino=off,lowerdir=/run/host,upperdir=/run/layer/upper,workdir=/run/layer/work \
        root /run/root
    # pivot_root(2): neither mount may be shared.
    IPTTRACE_VM_STAGE=second exec unshare --mount --propagation private sh "$0" "$@"
fi

checkout=$1 snapshot=$2 modules=$3 seconds=$4
export IPTTRACE_SLOW="$5" IPTTRACE_CLOCK="$6"
shift 6
cd /run/root
for name in proc sys dev; do mount --rbind "/$name" "$name"; done
mount -t tmpfs run run
mount -t tmpfs -o mode=1777 tmp tmp
mkdir -p run/old run/results
mount -t 9p -o trans=virtio,version=9p2000.L results run/results
pivot_root . run/old
mkdir -p /lib/modules
mount --bind "$modules" /lib/modules
# The checkout as it was at the start: somebody may be working in it.
mount --bind "$checkout/.venv" "$snapshot/.venv"
mount --rbind "$snapshot" "$checkout"
umount -l /run/old

cd "$checkout"
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
export IPTTRACE_LEDGER=/run/results/ledger
lsmod | sort >/run/results/modules-before
status=0
timeout "$seconds" "$@" >/run/results/output 2>&1 </dev/null || status=$?
lsmod | sort >/run/results/modules-after
dmesg >/run/results/dmesg
echo "$status" >/run/results/status
