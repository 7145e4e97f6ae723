#!/bin/sh
# Installs ipttrace from this checkout and runs tests/root on the kernel of this machine.
set -eu

usage() {
    cat <<'TEXT'
usage: vagrant/provision.sh [PYTEST-WORD...]

As root, on Debian 12 or later, Ubuntu 24.04 or later, or Rocky 9: installs what ipttrace and its
tests need, the program itself into .venv of the checkout, and runs tests/root, or what the words
say.  What is there already is not installed again, and needs no network.
TEXT
}

say() { printf 'provision: %s\n' "$*" >&2; }

case ${1-} in --help | -h) usage; exit 0 ;; esac
cd "$(dirname "$(readlink -f "$0")")/.."
if [ "$(id -u)" != 0 ]; then
    say "cannot install: not root. Run: sudo vagrant/provision.sh"
    exit 3
fi

# EPEL has iptables-legacy. The modules that inject packets (act_mirred, cls_u32) are extra ones.
rocky="iptables-nft iptables-legacy nftables iproute iproute-tc libpcap kmod python3.11
    python3.11-devel gcc ca-certificates tcpdump tmux nmap-ncat curl procps-ng conntrack-tools
    diffutils kernel-modules-extra-$(uname -r)"

if command -v dnf >/dev/null; then
    # shellcheck disable=SC2086  # a list of words
    if ! rpm -q --quiet epel-release $rocky; then
        say "installing $rocky"
        dnf install -q -y epel-release
        dnf install -q -y $rocky
    fi
    scripts/setup --no-packages
else
    scripts/setup
fi

[ $# != 0 ] || set -- tests/root
say "tests on Linux $(uname -r), $(iptables -V), $(nft -v)"
export IPTTRACE_REQUIRE_ROOT=1 INLINE_SNAPSHOT_DEFAULT_FLAGS=disable
exec .venv/bin/python -m pytest "$@"
