"""The causes that lie in chains and in connection tracking, reproduced on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ipttrace.cli import compose
from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import Outcome, Strength
from ipttrace.probe import ProbeSpec
from tests.root.causes import Probed, probe, rule_numbers
from tests.root.full_table import fill
from tests.root.hairpin import Hairpin, build_hairpin
from tests.root.kernel import Iptables, Listeners, Namespaces, Pair, run, set_sysctl
from tests.root.queue_listener import QueueListener
from tests.root.routed import address_words

pytestmark = pytest.mark.root

PORT, OTHER = 8443, 8445
SPORT = 40000
WAIT, SOON = 12.0, 8.0
"""Seconds: what a probe may wait for at most, and in which a cause is told that needs no wait."""

MATRIX = [
    pytest.param(PacketFamily.IPV4, "in", id="ipv4-in"),
    pytest.param(PacketFamily.IPV4, "from", id="ipv4-from", marks=pytest.mark.full),
    pytest.param(PacketFamily.IPV6, "in", id="ipv6-in", marks=pytest.mark.full),
    pytest.param(PacketFamily.IPV6, "from", id="ipv6-from", marks=pytest.mark.full),
]
matrix = pytest.mark.parametrize(("family", "way"), MATRIX)


@dataclass
class Lab:
    """The server of a pair, with rules in one backend, and probes to it."""

    pair: Pair
    iptables: Iptables
    family: PacketFamily
    way: str
    listen: Listeners

    @property
    def server(self) -> str:
        """The server's address."""
        return self.pair.server.address(self.family)

    @property
    def client(self) -> str:
        """The client's address."""
        return self.pair.client.address(self.family)

    @property
    def netns(self) -> str:
        """The server's namespace."""
        return self.pair.server.netns

    def rules(self, *lines: str) -> None:
        """Add rules to the server, each as words of iptables."""
        for line in lines:
            self.iptables(self.netns, self.family, *line.split())

    def nft(self, *lines: str) -> None:
        """Load native nft commands into the server."""
        self.pair.server.run("nft", "-f", "-", stdin="\n".join(lines))

    def send(self, protocol: str = "tcp", port: int = PORT, **words: Any) -> Probed:
        """Probe the server from the client: injected, or by a real connection."""
        known: dict[str, Any] = {"dst": self.server, "dport": port, "netns": (self.netns,)}
        known["wait"] = WAIT
        if self.way == "in":
            known |= {"src": self.client, "sport": SPORT, "in_interface": "eth0"}
        elif self.way == "from":
            known |= {"from_netns": self.pair.client.netns}
        return probe(ProbeSpec(protocol, **{**known, **words}))

    def setting(self, name: str, value: str) -> None:
        """Set a sysctl of the server."""
        set_sysctl(self.netns, name, value)

    def datagram(self, port: int = PORT) -> None:
        """Send a datagram from the client's port SPORT to the server."""
        kind = socket.AF_INET if self.family is PacketFamily.IPV4 else socket.AF_INET6
        with self.pair.client.socket(kind, socket.SOCK_DGRAM) as sender:
            sender.bind((self.client, SPORT))
            sender.sendto(b"x", (self.server, port))


@pytest.fixture
def build(pair: Pair, iptables: Iptables, listen: Listeners) -> Callable[[PacketFamily, str], Lab]:
    """Returns a lab of a family and a way of sending."""
    return lambda family, way: Lab(pair, iptables, family, way, listen)


Build = Callable[[PacketFamily, str], Lab]

TO_PORT = f"-p tcp --dport {PORT}"
LOCATIONS = {Backend.LEGACY: "nf_hook_slow", Backend.NFT: "nft_do_chain"}


def has(probed: Probed, text: str, strength: Strength) -> bool:
    """Return whether there is evidence of that strength with `text` in it."""
    return any(text in e.text and e.strength is strength for e in probed.diagnosis.evidence)


# ------------------------------------------------------------------- rules and policies


@matrix
def test_a_rule_that_drops(build: Build, family: PacketFamily, way: str, backend: Backend) -> None:
    lab = build(family, way)
    lab.rules(f"-A INPUT -p tcp --dport {OTHER} -j ACCEPT", f"-A INPUT {TO_PORT} -j DROP")
    probed = lab.send()
    probed.check("rule-drop", Outcome.DROPPED, within=SOON)
    assert rule_numbers(probed) == ["filter/INPUT 2"]
    freed = f"the kernel freed it: NETFILTER_DROP in {LOCATIONS[backend]}"
    assert has(probed, freed, Strength.REPORTED), probed.evidence()


@matrix
def test_a_policy_that_drops(build: Build, family: PacketFamily, way: str) -> None:
    lab = build(family, way)
    neighbours = "-p ipv6-icmp" if family is PacketFamily.IPV6 else "-p icmp"
    lab.rules(f"-A INPUT {neighbours} -j ACCEPT", "-P INPUT DROP")
    lab.send().check("policy-drop", Outcome.DROPPED, within=SOON)


def test_an_unconditional_rule_is_no_policy(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules("-A INPUT -j DROP")
    lab.send().check("rule-drop", Outcome.DROPPED, within=SOON)


@matrix
def test_a_mark_that_an_earlier_rule_set(build: Build, family: PacketFamily, way: str) -> None:
    lab = build(family, way)
    lab.rules(
        f"-t mangle -A PREROUTING {TO_PORT} -j MARK --set-mark 1",
        f"-t nat -A PREROUTING -p tcp --dport {OTHER} -j REDIRECT --to-ports {PORT}",
        "-A INPUT -m mark --mark 1 -j DROP",
    )
    probed = lab.send()
    probed.check("mark-drop", Outcome.DROPPED, within=SOON)
    assert rule_numbers(probed) == ["filter/INPUT 1", "mangle/PREROUTING 1"]
    assert has(probed, "rule-drop", Strength.INFERRED)
    assert f"wants --dport {OTHER}, the packet has {PORT}" in probed.text


@pytest.mark.full
def test_a_rule_that_did_not_match_since_a_rewrite(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(
        f"-t nat -A PREROUTING -p tcp --dport {OTHER} -j REDIRECT --to-ports {PORT}",
        f"-A INPUT -p tcp --dport {OTHER} -j ACCEPT",
        "-A INPUT -p tcp -j DROP",
    )
    probed = lab.send(port=OTHER)
    probed.check("rule-drop", Outcome.DROPPED, within=SOON)
    line = f"filter/INPUT 1 wants --dport {OTHER}, the packet has {PORT} since nat/PREROUTING 1"
    assert line in probed.text


REJECTIONS = {
    PacketFamily.IPV4: {
        "tcp-reset": "ECONNREFUSED",
        "icmp-port-unreachable": "ECONNREFUSED",
        "icmp-host-prohibited": "EHOSTUNREACH",
        "icmp-admin-prohibited": "EHOSTUNREACH",
        "icmp-host-unreachable": "EHOSTUNREACH",
        "icmp-net-unreachable": "ENETUNREACH",
        "icmp-net-prohibited": "ENETUNREACH",
        "icmp-proto-unreachable": "ENOPROTOOPT",
    },
    PacketFamily.IPV6: {
        "tcp-reset": "ECONNREFUSED",
        "icmp6-port-unreachable": "ECONNREFUSED",
        "icmp6-adm-prohibited": "EACCES",
        "icmp6-addr-unreachable": "EHOSTUNREACH",
        "icmp6-no-route": "ENETUNREACH",
    },
}


def rejections() -> list[Any]:
    """Return each way to reject; the default run keeps one of each kind."""
    kept = {"tcp-reset", "icmp-host-prohibited"}
    return [
        pytest.param(
            family,
            word,
            error,
            id=f"{family}-{word}",
            marks=() if word in kept and family is PacketFamily.IPV4 else pytest.mark.full,
        )
        for family, words in REJECTIONS.items()
        for word, error in words.items()
    ]


@pytest.mark.parametrize(("family", "word", "error"), rejections())
def test_a_rule_that_rejects(build: Build, family: PacketFamily, word: str, error: str) -> None:
    lab = build(family, "from")
    lab.rules(f"-A INPUT {TO_PORT} -j REJECT --reject-with {word}")
    probed = lab.send()
    # An error that meets the socket while connect() holds it is lost (LockDroppedIcmps): with
    # known neighbours, as in IPv6 here, only the answer to the resent SYN is heard.
    probed.check("rule-reject", Outcome.REJECTED, within=SOON)
    assert probed.result.client == (error,)
    assert has(probed, "NETFILTER_DROP", Strength.REPORTED)
    if word == "tcp-reset":
        assert has(probed, "no tcp_send_reset", Strength.REPORTED)
        assert has(probed, "TcpOutRsts did not rise", Strength.MATCHED)
    else:
        assert has(probed, "OutDestUnreachs rose", Strength.MATCHED)


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        (PacketFamily.IPV4, "net/ipv4/icmp_ratelimit"),
        pytest.param(PacketFamily.IPV6, "net/ipv6/icmp/ratelimit", marks=pytest.mark.full),
    ],
)
def test_a_rejection_that_is_rate_limited(build: Build, family: PacketFamily, setting: str) -> None:
    lab = build(family, "from")
    lab.setting(setting, "1000000")
    lab.rules(f"-A INPUT {TO_PORT} -j REJECT")
    probed = lab.send()
    probed.check("rule-reject", Outcome.REJECTED, within=SOON)
    assert probed.result.client == ("TIMEOUT",)
    assert has(probed, "OutRateLimitHost rose", Strength.MATCHED), probed.evidence()


@pytest.mark.parametrize(
    ("protocol", "target", "outcome", "client"),
    [
        ("udp", "DROP", Outcome.DROPPED, "EPERM"),
        pytest.param("tcp", "DROP", Outcome.DROPPED, "TIMEOUT", marks=pytest.mark.full),
        pytest.param("tcp", "REJECT", Outcome.REJECTED, "ECONNREFUSED", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize(
    "family", [PacketFamily.IPV4, pytest.param(PacketFamily.IPV6, marks=pytest.mark.full)]
)
def test_the_senders_own_rules(
    build: Build, family: PacketFamily, protocol: str, target: str, outcome: Outcome, client: str
) -> None:
    lab = build(family, "own")
    lab.rules(f"-A OUTPUT -p {protocol} --dport {PORT} -j {target}")
    probed = lab.send(protocol, dst=lab.client)
    probed.check("output-blocked", outcome, within=SOON)
    assert probed.result.client == (client,)
    assert rule_numbers(probed) == ["filter/OUTPUT 1"]
    assert has(probed, f"by itself this is a rule-{target.lower()}", Strength.INFERRED)


@pytest.mark.parametrize(
    "family", [PacketFamily.IPV4, pytest.param(PacketFamily.IPV6, marks=pytest.mark.full)]
)
def test_a_redirect_that_local_packets_do_not_meet(build: Build, family: PacketFamily) -> None:
    lab = build(family, "own")
    lab.listen(lab.netns, lab.server, PORT)
    lab.rules(f"-t nat -A PREROUTING -p tcp --dport {OTHER} -j REDIRECT --to-ports {PORT}")
    probed = lab.send(port=OTHER)
    probed.check("redirect-not-in-output", Outcome.REFUSED, within=SOON)
    assert probed.result.client == ("ECONNREFUSED",)


@pytest.mark.full
def test_a_native_redirect_that_local_packets_do_not_meet(pair: Pair, listen: Listeners) -> None:
    lab = Lab(pair, Iptables(Backend.NFT), PacketFamily.IPV4, "own", listen)
    lab.listen(lab.netns, "0.0.0.0", PORT)
    chain = "type nat hook prerouting priority -100"
    lab.nft(f"table ip n {{ chain pre {{ {chain}; tcp dport {OTHER} redirect to :{PORT}; }}; }}")
    probed = lab.send(port=OTHER)
    probed.check("redirect-not-in-output", Outcome.REFUSED, within=SOON)
    command = probed.diagnosis.remedy[0].partition(": ")[2]
    pair.server.run("sh", "-c", command)
    lab.send(port=OTHER).check("delivered", Outcome.DELIVERED, within=SOON)


# ------------------------------------------------------------------- both backends


def other_of(backend: Backend) -> Iptables:
    return Iptables(Backend.NFT if backend is Backend.LEGACY else Backend.LEGACY)


@matrix
def test_the_other_backend_would_accept(
    build: Build, family: PacketFamily, way: str, backend: Backend
) -> None:
    lab = build(family, way)
    lab.rules(f"-A INPUT {TO_PORT} -j DROP")
    lab.iptables = other_of(backend)
    lab.rules(f"-A INPUT -i eth0 {TO_PORT} -j ACCEPT")
    probed = lab.send()
    probed.check("other-backend-drop", Outcome.DROPPED, within=SOON)
    assert {ref.chain.backend for ref in probed.diagnosis.rules} == set(Backend)
    assert has(probed, LOCATIONS[backend], Strength.REPORTED)


@pytest.mark.full
@pytest.mark.parametrize("words", ["-j ACCEPT", "-m conntrack --ctstate NEW -j OPEN"])
def test_the_other_backend_that_runs_first_or_in_a_chain_of_its_own(
    build: Build, backend: Backend, words: str
) -> None:
    lab = build(PacketFamily.IPV4, "in")
    first = lab.iptables
    lab.iptables = other_of(backend)
    lab.rules("-N OPEN", f"-A OPEN {TO_PORT} -j ACCEPT", f"-A INPUT -p tcp {words}")
    lab.iptables = first
    lab.rules("-P INPUT DROP")
    lab.send().check("other-backend-drop", Outcome.DROPPED, within=SOON)


@pytest.mark.parametrize(
    "rule",
    [
        f"-A INPUT -p tcp --dport {OTHER} -j ACCEPT",
        f"-A INPUT {TO_PORT} -j LOG",
        f"-A INPUT {TO_PORT} -m length --length 1:1000 -j ACCEPT",
        f"-t mangle -A INPUT {TO_PORT} -j ACCEPT",
    ],
)
@pytest.mark.full
def test_the_other_backend_says_nothing_of_it(build: Build, backend: Backend, rule: str) -> None:
    """A rule whose match is not judged would be a guess where its chain is not asked first."""
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(f"-t raw -A PREROUTING {TO_PORT} -j DROP")
    lab.iptables = other_of(backend)
    lab.rules(rule)
    lab.send().check("rule-drop", Outcome.DROPPED, within=SOON)


NATIVE = "table inet fw { chain in { type filter hook input priority %s; policy %s; %s; }; }"


def test_native_nft_drops_what_iptables_accepts(build: Build, backend: Backend) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(f"-A INPUT {TO_PORT} -j ACCEPT")
    lab.nft(NATIVE % ("10", "drop", "tcp dport 22 accept"))
    cause = "other-backend-drop" if backend is Backend.LEGACY else "policy-drop"
    lab.send().check(cause, Outcome.DROPPED, within=SOON)


def test_native_nft_would_accept_what_iptables_drops(build: Build, backend: Backend) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(f"-A INPUT {TO_PORT} -j DROP")
    rule = f'iifname "eth0" tcp dport {{ 22, {PORT} }} ct state new counter accept'
    lab.nft(NATIVE % ("10", "drop", rule))
    cause = "other-backend-drop" if backend is Backend.LEGACY else "rule-drop"
    lab.send().check(cause, Outcome.DROPPED, within=SOON)


@pytest.mark.full
@pytest.mark.parametrize("verdict", ["drop", "jump out"])
def test_a_mark_that_a_native_rule_set(pair: Pair, listen: Listeners, verdict: str) -> None:
    lab = Lab(pair, Iptables(Backend.NFT), PacketFamily.IPV4, "in", listen)
    marks = f"type filter hook prerouting priority -150; tcp dport {PORT} meta mark set 0x5"
    drops = f"type filter hook input priority 0; meta mark 0x5 counter {verdict}"
    lab.nft(
        f"table inet fw {{ chain out {{ drop; }}; chain pre {{ {marks}; }}; "
        f"chain in {{ {drops}; }}; }}"
    )
    probed = lab.send()
    probed.check("mark-drop", Outcome.DROPPED, within=SOON)
    assert "fw/pre 1" in rule_numbers(probed)


@pytest.mark.parametrize(
    ("rule", "cause", "outcome"),
    [
        (f"tcp dport {PORT} drop", "rule-drop", Outcome.DROPPED),
        (f"tcp dport {PORT} reject with tcp reset", "rule-reject", Outcome.REJECTED),
        ("ct state invalid drop", "conntrack-invalid", Outcome.DROPPED),
    ],
)
@pytest.mark.full
def test_native_nft(pair: Pair, listen: Listeners, rule: str, cause: str, outcome: Outcome) -> None:
    lab = Lab(pair, Iptables(Backend.NFT), PacketFamily.IPV4, "in", listen)
    lab.nft(NATIVE % ("0", "accept", rule))
    flags = ("FIN", "SYN") if "invalid" in rule else ("SYN",)
    lab.send(tcp_flags=flags).check(cause, outcome, within=SOON)


# ------------------------------------------------------------------- ends without words


@matrix
def test_a_queue_that_nobody_reads(build: Build, family: PacketFamily, way: str) -> None:
    lab = build(family, way)
    lab.rules(f"-A INPUT {TO_PORT} -j NFQUEUE --queue-num 7")
    probed = lab.send()
    probed.check("queue-no-listener", Outcome.DROPPED, within=SOON)
    assert rule_numbers(probed) == ["filter/INPUT 1"]
    assert has(probed, "NOT_SPECIFIED in nf_queue", Strength.REPORTED)


def test_a_queue_that_may_be_bypassed_is_not_to_blame(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.listen(lab.netns, lab.server, PORT)
    lab.rules(f"-A INPUT {TO_PORT} -j NFQUEUE --queue-num 7 --queue-bypass")
    lab.send().check("delivered", Outcome.DELIVERED, within=SOON)


def test_a_queue_whose_program_keeps_the_packet(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(f"-A INPUT {TO_PORT} -j NFQUEUE --queue-num 7")
    with QueueListener(lab.netns, 7):
        probed = lab.send(wait=0.5)
    probed.check("unknown", Outcome.LOST)


@matrix
def test_a_proxy_without_a_socket(build: Build, family: PacketFamily, way: str) -> None:
    lab = build(family, way)
    lab.rules(f"-t mangle -A PREROUTING {TO_PORT} -j TPROXY --on-port 9999")
    probed = lab.send()
    probed.check("tproxy-no-socket", Outcome.DROPPED, within=SOON)
    assert "port 9999" in probed.diagnosis.summary
    assert has(probed, "NETFILTER_DROP", Strength.REPORTED)


LIMIT = (
    "-m hashlimit --hashlimit-above 1000/s --hashlimit-mode srcip --hashlimit-name seen "
    "--hashlimit-htable-max 1 --hashlimit-htable-size 1 --hashlimit-htable-expire 600000"
)


@pytest.mark.parametrize("target", ["DROP", pytest.param("ACCEPT", marks=pytest.mark.full)])
@pytest.mark.parametrize("table", ["filter", pytest.param("mangle", marks=pytest.mark.full)])
def test_a_match_that_refuses_the_packet(build: Build, target: str, table: str) -> None:
    """A table of one address refuses the second one: dsthash_alloc_init in xt_hashlimit.c."""
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(f"-t {table} -A INPUT -p udp {LIMIT} -j {target}")
    lab.datagram()
    probed = lab.send("udp", src="198.51.100.77")
    probed.check("match-hotdrop", Outcome.DROPPED, within=SOON)
    assert rule_numbers(probed) == [f"{table}/INPUT 1"]
    assert "-m hashlimit" in probed.diagnosis.summary


# ------------------------------------------------------------------- connection tracking


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("FIN", "SYN"), "no TCP sends this combination of flags"),
        pytest.param(("SYN", "ACK"), "a SYN-ACK begins no connection", marks=pytest.mark.full),
        pytest.param(("RST",), "a reset begins no connection", marks=pytest.mark.full),
        pytest.param(("FIN", "ACK"), "a FIN begins no connection", marks=pytest.mark.full),
        pytest.param(("ACK",), "nf_conntrack_tcp_loose is 0", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize(
    "family", [PacketFamily.IPV4, pytest.param(PacketFamily.IPV6, marks=pytest.mark.full)]
)
def test_a_packet_that_conntrack_does_not_know(
    build: Build, family: PacketFamily, flags: tuple[str, ...], why: str
) -> None:
    lab = build(family, "in")
    lab.rules("-A INPUT -p tcp -m conntrack --ctstate INVALID -j DROP")
    lab.setting("net/netfilter/nf_conntrack_tcp_loose", "0")
    probed = lab.send(tcp_flags=flags)
    probed.check("conntrack-invalid", Outcome.DROPPED, within=SOON)
    assert why in probed.diagnosis.summary


def test_what_conntrack_logged_is_evidence(pair: Pair, listen: Listeners) -> None:
    """Where there are legacy tables: without, nobody listens to the log group."""
    lab = Lab(pair, Iptables(Backend.LEGACY), PacketFamily.IPV4, "in", listen)
    lab.rules("-A INPUT -p tcp -m conntrack --ctstate INVALID -j DROP")
    lab.setting("net/netfilter/nf_conntrack_log_invalid", "255")
    probed = lab.send(tcp_flags=("FIN", "SYN"))
    probed.check("conntrack-invalid", Outcome.DROPPED, within=SOON)
    assert "conntrack logged 'invalid tcp flag combination'" in probed.diagnosis.summary
    assert not any("log messages" in warning for warning in probed.result.warnings)


REDIRECT = f"-t nat -A PREROUTING -p udp --dport {PORT} -j REDIRECT --to-ports 9999"


@pytest.mark.parametrize(
    "family", [PacketFamily.IPV4, pytest.param(PacketFamily.IPV6, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("older", ["nat rules", "conntrack"])
@pytest.mark.parametrize("way", ["in", pytest.param("from", marks=pytest.mark.full)])
def test_an_entry_from_before_the_rule(
    build: Build, family: PacketFamily, older: str, way: str
) -> None:
    """With a nat table the rules are not asked again; without, they match and change nothing."""
    lab = build(family, way)
    first = "-t nat -A PREROUTING -p udp --dport 1 -j REDIRECT --to-ports 2"
    lab.rules(first if older == "nat rules" else "-A INPUT -m conntrack --ctstate INVALID -j DROP")
    lab.listen(lab.netns, lab.server, PORT, "udp")
    lab.datagram()
    lab.rules(REDIRECT)
    wait = WAIT if way == "in" else 0.5
    probed = lab.send("udp", src=lab.client, sport=SPORT, wait=wait)
    probed.check("stale-conntrack", Outcome.DELIVERED, within=SOON)
    assert f"--sport {SPORT} --dport {PORT}" in probed.diagnosis.remedy[0]
    assert has(probed, "before the packet was sent", Strength.MATCHED)


@pytest.mark.full
def test_an_entry_that_the_rule_made_is_not_stale(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.listen(lab.netns, lab.server, 9999, "udp")
    lab.rules(REDIRECT)
    lab.datagram()
    lab.send("udp").check("delivered", Outcome.DELIVERED, within=SOON)


def test_a_stale_entry_behind_which_a_policy_drops(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "in")
    lab.rules("-t nat -A PREROUTING -p udp --dport 1 -j REDIRECT --to-ports 2")
    lab.listen(lab.netns, lab.server, PORT, "udp")
    lab.datagram()
    lab.rules(REDIRECT, "-A INPUT -p udp --dport 9999 -j ACCEPT", "-P INPUT DROP")
    probed = lab.send("udp")
    probed.check("stale-conntrack", Outcome.DROPPED, within=SOON)
    assert has(probed, "by itself this is a policy-drop", Strength.INFERRED)


@pytest.mark.parametrize(
    ("family", "way"),
    [
        (PacketFamily.IPV4, "in"),
        pytest.param(PacketFamily.IPV6, "from", marks=pytest.mark.full),
    ],
)
def test_a_full_connection_table(build: Build, family: PacketFamily, way: str) -> None:
    """A namespace counts its own entries, so it can be full while the host is not."""
    lab = build(family, way)
    lab.rules("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT")
    lab.listen(lab.netns, lab.server, PORT)
    fill(lab.netns)
    probed = lab.send()
    probed.check("conntrack-full", Outcome.DROPPED, within=SOON)
    assert has(probed, "conntrack's counter of drops rose", Strength.MATCHED)
    assert has(probed, "NETFILTER_DROP", Strength.REPORTED)


# ------------------------------------------------------------------- the answer's way


BOTH = [PacketFamily.IPV4, pytest.param(PacketFamily.IPV6, marks=pytest.mark.full)]


def through(hairpin: Hairpin, family: PacketFamily, **words: Any) -> Probed:
    """Connect from the client to the router's port 80, traced in the router."""
    known: dict[str, Any] = {"dport": 80, "from_netns": hairpin.client.netns, "wait": 1.0}
    spec = ProbeSpec("tcp", hairpin.router.address(family), netns=(hairpin.router.netns,))
    return probe(spec, **{**known, **words})


@pytest.mark.parametrize("family", BOTH)
def test_a_packet_sent_back_into_the_clients_network(
    namespaces: Namespaces, listen: Listeners, iptables: Iptables, family: PacketFamily
) -> None:
    hairpin = build_hairpin(namespaces)
    router, backend = hairpin.router, hairpin.backend
    listen(backend.netns, backend.address(family), PORT)
    target = address_words(backend, family, PORT)
    words = f"-t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination {target}"
    iptables(router.netns, family, *words.split())
    probed = through(hairpin, family)
    probed.check("hairpin-no-masquerade", Outcome.FORWARDED)
    assert probed.result.client == ("TIMEOUT",)
    assert has(probed, "SYN_SENT [UNREPLIED]", Strength.MATCHED)
    router.run("sh", "-c", probed.diagnosis.remedy[-1].partition(": ")[2])
    probed = through(hairpin, family, wait=WAIT)
    probed.check("answered", Outcome.FORWARDED, within=SOON)


@pytest.mark.parametrize("family", BOTH)
def test_an_answer_that_the_hosts_own_rules_stop(build: Build, family: PacketFamily) -> None:
    lab = build(family, "from")
    lab.listen(lab.netns, lab.server, PORT)
    lab.rules(f"-A OUTPUT -p tcp --sport {PORT} -j DROP")
    probed = lab.send()
    probed.check("asymmetric-reply", Outcome.DELIVERED, within=SOON)
    assert "was dropped on its way out, at filter/OUTPUT 1" in probed.diagnosis.summary
    assert rule_numbers(probed) == ["filter/OUTPUT 1"]


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("way", ["in", pytest.param("from", marks=pytest.mark.full)])
def test_an_answer_that_leaves_by_another_interface(
    build: Build, namespaces: Namespaces, family: PacketFamily, way: str
) -> None:
    lab = build(family, way)
    lab.listen(lab.netns, lab.server, PORT)
    lab.rules(f"-A INPUT {TO_PORT} -j ACCEPT")
    server = lab.pair.server
    peer = ("peer", "name", "eth1", "netns", namespaces.add("elsewhere"))
    server.run("ip", "link", "add", "eth1", "type", "veth", *peer)
    run("ip", "link", "set", "eth1", "up", netns=peer[-1])
    server.run("ip", "link", "set", "eth1", "up")
    server.run("ip", "route", "add", lab.client, "dev", "eth1")
    server.run("ip", "neighbour", "add", lab.client, "lladdr", "02:00:00:00:00:99", "dev", "eth1")
    probed = lab.send(wait=1.0 if way == "from" else WAIT)
    probed.check("asymmetric-reply", Outcome.DELIVERED, within=SOON)
    assert "came in by eth0, its answer left by eth1" in probed.diagnosis.evidence[-1].text


@pytest.mark.full
def test_an_answer_that_goes_back_is_no_cause(build: Build) -> None:
    lab = build(PacketFamily.IPV4, "from")
    lab.listen(lab.netns, lab.server, PORT)
    lab.rules(f"-A INPUT {TO_PORT} -j ACCEPT")
    lab.send().check("delivered", Outcome.DELIVERED, within=SOON)


# ------------------------------------------------------------------- without the kernel's events

DROPS, REJECTS = f"-A INPUT {TO_PORT} -j DROP", f"-A INPUT {TO_PORT} -j REJECT"


@pytest.mark.parametrize(
    ("rule", "cause", "outcome"),
    [
        pytest.param(DROPS, "rule-drop", Outcome.DROPPED, marks=pytest.mark.full),
        pytest.param(REJECTS, "rule-reject", Outcome.REJECTED, marks=pytest.mark.full),
        (f"-A INPUT {TO_PORT} -j NFQUEUE --queue-num 3", "queue-no-listener", None),
        (f"-t mangle -A PREROUTING {TO_PORT} -j TPROXY --on-port 9", "tproxy-no-socket", None),
    ],
)
def test_without_tracefs(
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    cause: str,
    outcome: Outcome | None,
) -> None:
    def refuse(_session: str) -> None:
        raise NotSupportedError("cannot read the kernel's trace events: no tracefs")

    monkeypatch.setattr(compose, "TraceInstance", refuse)
    lab = build(PacketFamily.IPV4, "in")
    lab.rules(rule)
    probed = lab.send(wait=1.0)
    assert probed.cause == cause, probed.text
    assert probed.path.outcome in ((outcome,) if outcome else (Outcome.LOST, Outcome.DROPPED))
