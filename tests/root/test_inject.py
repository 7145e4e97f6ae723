"""Injected packets on the real kernel: seen as received, and nothing of them stays."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.packet import Flow
from ipttrace.probe import ProbeSpec, validate
from ipttrace.system.addresses import interface_towards, is_local
from ipttrace.system.inject import InjectingClient
from ipttrace.system.tap import IFF_NO_PI, NAME_PREFIX, TUNSETIFF
from tests.root.kernel import Iptables, Listeners, Pair, in_namespace, run, wait_for_addresses
from tests.waiting import wait_until

STRANGER = {PacketFamily.IPV4: "198.51.100.77", PacketFamily.IPV6: "2001:db8::77"}
ECHO_REPLY = {
    PacketFamily.IPV4: "icmp -m icmp --icmp-type 0",
    PacketFamily.IPV6: "ipv6-icmp -m icmp6 --icmpv6-type 129",
}
ECHO = {PacketFamily.IPV4: "icmp", PacketFamily.IPV6: "icmp6"}
TRACKING = "-A INPUT -m conntrack --ctstate INVALID -j DROP"
"""A rule that switches conntrack on."""
IFF_TUN = 0x0001
"""uapi/linux/if_tun.h."""

Inject = Callable[..., InjectingClient]


@pytest.fixture
def inject() -> Iterator[Inject]:
    """Prepares clients: `inject(netns, spec)`; finishes all of them."""
    made: list[InjectingClient] = []

    def prepare(netns: str, spec: ProbeSpec) -> InjectingClient:
        client = InjectingClient(validate(spec), in_namespace(netns), "test")
        made.append(client)
        client.prepare()
        return client

    yield prepare
    for client in made:
        client.finish()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test entered into it."""
    with ExitStack() as opened:
        yield opened


@contextmanager
def held_tun(netns: str, name: str) -> Iterator[None]:
    """Hold a tun device open, so that it has a carrier."""
    request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
    path = Path("/dev/net/tun")
    with in_namespace(netns).run(lambda: path.open("r+b", buffering=0)) as device:
        fcntl.ioctl(device, TUNSETIFF, request)
        yield


def spec_to(
    dst: str, protocol: str = "tcp", dport: int | None = 8443, **words: object
) -> ProbeSpec:
    spec = ProbeSpec(protocol, dst, dport, in_interface="eth0")
    return replace(spec, **words)  # type: ignore[arg-type]


def hits(iptables: Iptables, netns: str, family: PacketFamily, rule: str) -> int:
    for line in iptables.save(netns, family).splitlines():
        if line.endswith(rule):
            return int(re.findall(r"\[(\d+):", line)[0])
    raise AssertionError(f"no rule {rule}")


def taps(netns: str) -> list[str]:
    links = run("ip", "-o", "link", netns=netns)
    return re.findall(rf"\b{NAME_PREFIX}[0-9a-f]+", links)


def half_open(netns: str) -> str:
    return run("ss", "-Htan", "state", "syn-recv", netns=netns)


def test_packet_is_seen_as_received_on_the_target(
    pair: Pair, iptables: Iptables, family: PacketFamily, inject: Inject
) -> None:
    server = pair.server
    rule = "-A INPUT -i eth0 -p udp -m udp --dport 53"
    iptables(server.netns, family, *rule.split())
    client = inject(server.netns, spec_to(server.address(family), "udp", 53, count=3))
    for _ in range(3):
        client.send()
    assert hits(iptables, server.netns, family, rule) == 3
    assert client.poll() == "SENT"
    assert len({flow.sport for flow in client.flows}) == 3


def test_every_header_is_as_announced(
    pair: Pair, iptables: Iptables, family: PacketFamily, inject: Inject
) -> None:
    server = pair.server
    ttl = "ttl --ttl-eq 9" if family is PacketFamily.IPV4 else "hl --hl-eq 9"
    spec = spec_to(server.address(family), src=STRANGER[family], sport=40000, size=900, ttl=9)
    mask = "32" if family is PacketFamily.IPV4 else "128"
    rule = (
        f"-A INPUT -s {STRANGER[family]}/{mask} -i eth0 -p tcp -m tcp --sport 40000 --dport 8443 "
        f"--tcp-flags FIN,SYN,RST,PSH,ACK,URG SYN -m {ttl} -m length --length 900"
    )
    iptables(server.netns, family, *rule.split())
    inject(server.netns, spec).send()
    last = [line for line in iptables.save(server.netns, family).splitlines() if "-A INPUT" in line]
    assert last[0].startswith("[1:")


def test_closed_port_answers_with_rst(
    pair: Pair, iptables: Iptables, family: PacketFamily, inject: Inject
) -> None:
    server = pair.server
    rule = "-A OUTPUT -o eth0 -p tcp -m tcp --sport 8443 --tcp-flags RST RST"
    iptables(server.netns, family, *rule.split())
    inject(server.netns, spec_to(server.address(family))).send()
    wait_until(lambda: hits(iptables, server.netns, family, rule) == 1)


def test_echo_request_is_answered(
    pair: Pair, iptables: Iptables, family: PacketFamily, inject: Inject
) -> None:
    server = pair.server
    rule = f"-A OUTPUT -p {ECHO_REPLY[family]}"
    iptables(server.netns, family, *rule.split())
    inject(server.netns, spec_to(server.address(family), ECHO[family], None)).send()
    wait_until(lambda: hits(iptables, server.netns, family, rule) == 1)


def test_half_open_socket_and_conntrack_entry_and_device_go(
    pair: Pair, iptables: Iptables, family: PacketFamily, inject: Inject, listen: Listeners
) -> None:
    server = pair.server
    listen(server.netns, server.address(family), 8443)
    iptables(server.netns, family, *TRACKING.split())
    client = inject(server.netns, spec_to(server.address(family), count=2))
    client.send()
    client.send()
    wait_until(lambda: len(half_open(server.netns).splitlines()) == 2, what="two half-open sockets")
    version = "ipv4" if family is PacketFamily.IPV4 else "ipv6"
    table = ("conntrack", "-L", "-f", version, "-p", "tcp")
    assert run(*table, netns=server.netns).count("dport=8443") == 2
    assert client.finish() == ()
    assert half_open(server.netns) == ""
    assert run(*table, netns=server.netns) == ""
    assert taps(server.netns) == []


def test_device_is_silent(pair: Pair, inject: Inject) -> None:
    client = inject(pair.server.netns, spec_to(pair.server.ipv6))
    client.send()
    (tap,) = taps(pair.server.netns)
    with pytest.raises(BlockingIOError):
        os.read(client._tap.descriptor, 2048)  # type: ignore[union-attr]
    assert "inet" not in run("ip", "address", "show", tap, netns=pair.server.netns)


def test_source_is_unused_address_of_the_network(
    pair: Pair, family: PacketFamily, inject: Inject
) -> None:
    server = pair.server
    flow = inject(server.netns, spec_to(server.address(family))).flows[0]
    prefix = "198.51.100." if family is PacketFamily.IPV4 else "2001:db8::"
    assert flow.src.startswith(prefix)
    assert flow.src not in {server.address(family), "198.51.100.0", "198.51.100.255"}


TARGETS = {
    "bridge": ["link add t0 type bridge", "link set t0 up"],
    "bridge without address on the port": [
        "link add br0 address 02:00:00:00:05:05 type bridge",
        "link add t0 type veth peer name p0",
        "link set t0 master br0",
        "link set br0 up",
        "link set p0 up",
        "link set t0 up",
    ],
    "macvlan": ["link add t0 link eth0 type macvlan mode bridge", "link set t0 up"],
    "tun": ["tuntap add dev t0 mode tun", "link set t0 up"],
}


@pytest.mark.parametrize("kind", TARGETS)
def test_kinds_of_target(
    kind: str, pair: Pair, family: PacketFamily, inject: Inject, stack: ExitStack
) -> None:
    netns = pair.server.netns
    holder = "br0" if "port" in kind else "t0"
    lines = [
        *TARGETS[kind],
        f"address add 203.0.113.1/24 dev {holder}",
        f"address add 2001:db8:5::1/64 dev {holder} nodad",
    ]
    run("ip", "-batch", "-", netns=netns, stdin="\n".join(lines))
    if kind == "tun":
        stack.enter_context(held_tun(netns, "t0"))
    wait_for_addresses(netns)
    iptables = Iptables(Backend.LEGACY)
    rule = f"-A INPUT -i {holder} -p udp -m udp --dport 53"
    iptables(netns, family, *rule.split())
    dst = "203.0.113.1" if family is PacketFamily.IPV4 else "2001:db8:5::1"
    inject(netns, spec_to(dst, "udp", 53, in_interface="t0")).send()
    wait_until(lambda: hits(iptables, netns, family, rule) == 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from ipttrace.probe import ProbeSpec
from ipttrace.system.addresses import interface_towards, is_local
from ipttrace.system.inject import InjectingClient
from ipttrace.system.namespaces import Namespace

netns, dst = sys.argv[1:]
client = InjectingClient(
    ProbeSpec("udp", dst, 53, in_interface="eth0"), Namespace(netns, Path("/run/netns", netns)), "t"
)
client.prepare()
client.send()
print("sent", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sigkill_leaves_no_device(pair: Pair) -> None:
    netns = pair.server.netns
    command = [sys.executable, "-c", KILLED, netns, pair.server.ipv4]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "sent\n"
    wait_until(lambda: taps(netns) == [])


KILLED_WITH_GUARDIAN = """
import os, signal, sys
from pathlib import Path
from ipttrace.netfilter import Hook
from ipttrace.request import TraceRequest, Trigger
from ipttrace.probe import ProbeSpec
from ipttrace.system.guardian import Guardian
from ipttrace.system.inject import InjectingClient
from ipttrace.system.namespaces import Namespace

netns, dst, session = sys.argv[1:]
namespace = Namespace(netns, Path("/run/netns", netns))
guardian = Guardian.start(namespace, session=session, legacy=False)
spec = ProbeSpec("tcp", dst, 8443, in_interface="eth0")
client = InjectingClient(spec, namespace, session, guardian)
(flow,) = client.prepare()
guardian.arm(TraceRequest(session, Hook.PREROUTING, flow, Trigger.OWNER, contain=True))
client.send()
print("sent", flush=True)
sys.stdin.read()
"""


def test_guardian_takes_the_half_open_socket_back(
    pair: Pair, family: PacketFamily, listen: Listeners, iptables: Iptables
) -> None:
    netns, dst, session = pair.server.netns, pair.server.address(family), secrets.token_hex(4)
    listen(netns, dst, 8443)
    iptables(netns, family, *TRACKING.split())
    command = [sys.executable, "-c", KILLED_WITH_GUARDIAN, netns, dst, session]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"sent\n"
        wait_until(lambda: half_open(netns), what="a half-open socket")
        victim.kill()
    wait_until(lambda: taps(netns) == [], what="no device")
    assert half_open(netns) == ""
    version = "ipv4" if family is PacketFamily.IPV4 else "ipv6"
    assert run("conntrack", "-L", "-f", version, netns=netns) == ""


class RecordingHeir:
    def __init__(self) -> None:
        self.legacy: tuple[int, list[bytes], list[Flow]] | None = None
        self.released = False

    def bequeath(self, descriptor: int, frames: Sequence[bytes], flows: Sequence[Flow]) -> None:
        self.legacy = (os.dup(descriptor), list(frames), list(flows))

    def release(self) -> None:
        self.released = True


def test_heir_can_take_the_half_open_socket_back(pair: Pair, listen: Listeners) -> None:
    netns, heir = pair.server.netns, RecordingHeir()
    listen(netns, pair.server.ipv4, 8443)
    spec = spec_to(pair.server.ipv4)
    client = InjectingClient(spec, in_namespace(netns), "test", heir)
    client.prepare()
    client.send()
    wait_until(lambda: half_open(netns), what="a half-open socket")
    assert heir.legacy is not None
    descriptor, frames, flows = heir.legacy
    os.write(descriptor, frames[0])
    wait_until(lambda: half_open(netns) == "", what="no half-open socket")
    assert flows == client.flows
    client.finish()
    assert heir.released
    assert taps(netns) == [], "also while the heir still holds the descriptor"
    os.close(descriptor)


def test_bad_targets_say_what_to_do(pair: Pair) -> None:
    netns = pair.server.netns
    lines = ["link add down0 type bridge", "tuntap add dev tun0 mode tun", "link set tun0 up"]
    run("ip", "-batch", "-", netns=netns, stdin="\n".join(lines))
    expected = {
        "absent0": (UsageError, "no such device. There are down0, eth0, lo, tun0."),
        "down0": (NotSupportedError, "it is down. Bring it up: ip link set down0 up"),
        "tun0": (NotSupportedError, "no program has open"),
    }
    for name, (kind, words) in expected.items():
        client = InjectingClient(
            spec_to(pair.server.ipv4, in_interface=name), in_namespace(netns), "test"
        )
        with pytest.raises(kind, match=re.escape(words)):
            client.prepare()
        assert taps(netns) == []
        assert client.finish() == ()


def test_no_source_without_an_address_of_the_family(pair: Pair) -> None:
    netns = pair.server.netns
    run("ip", "address", "flush", "dev", "eth0", "scope", "global", netns=netns)
    client = InjectingClient(spec_to("198.51.100.1"), in_namespace(netns), "test")
    with pytest.raises(UsageError, match="Give the source with --src"):
        client.prepare()


def test_device_that_went_away_is_a_warning(pair: Pair, inject: Inject) -> None:
    netns = pair.server.netns
    client = inject(netns, spec_to(pair.server.ipv4))
    client.send()
    run("ip", "link", "del", taps(netns)[0], netns=netns)
    (warning,) = client.finish()
    assert warning.startswith("half-open connections may stay for a minute: cannot inject")
    assert taps(netns) == []


def test_where_an_address_leads(pair: Pair, family: PacketFamily) -> None:
    server = in_namespace(pair.server.netns)
    own, far = pair.server.address(family), pair.client.address(family)
    assert is_local(server, own, family)
    assert not is_local(server, far, family)
    assert interface_towards(server, far, family) == "eth0"
    nowhere = "203.0.113.9" if family is PacketFamily.IPV4 else "2001:db8:ffff::9"
    assert interface_towards(server, nowhere, family) is None
