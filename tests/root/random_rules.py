"""Random rules that iptables-restore takes, as nested and as odd as users write them.

Everything follows from the seed.  Criteria are such that a test packet meets about half of them,
and rules that end it are rare enough that most packets cross most tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ipttrace.netfilter import TABLE_HOOKS, Backend, Hook, PacketFamily
from ipttrace.probe import ProbeSpec
from tests.root.routed import INSIDE, OUTSIDE, Routed, address_words

OPEN, CLOSED = 8443, 8080
"""Ports with and without a listener, on the router and on the backend."""
SNAT_PORTS = range(4000, 5000)

NAMES = ("U", "DOCKER-USER", "x:policy:1", "f2b.sshd", "A_long_chain_name_of_28_char", "raw")
ECHO = {PacketFamily.IPV4: "icmp", PacketFamily.IPV6: "icmp6"}
PROTOCOL_WORDS = {"icmp6": "ipv6-icmp"}

REJECTIONS = {
    PacketFamily.IPV4: (
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-port-unreachable",
        "icmp-proto-unreachable",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "icmp-admin-prohibited",
    ),
    PacketFamily.IPV6: (
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ),
}

NO_COPY = "-m conntrack ! --ctstate UNTRACKED"
"""Copies that are copied again over lo would never end: they are untracked (nf_dup_ipv4)."""

ABSENT_TABLES = 0.25
"""How often a table is left out."""
DROPPING_POLICY = {"filter": 0.05, "mangle": 0.02, "raw": 0.02, "security": 0.02, "nat": 0.0}
SENDING = frozenset({Hook.OUTPUT, Hook.POSTROUTING})
RECEIVING = frozenset({Hook.PREROUTING, Hook.INPUT})
NAT_KINDS = (
    frozenset({Hook.PREROUTING, Hook.OUTPUT}),
    frozenset({Hook.POSTROUTING}),
    frozenset({Hook.INPUT}),
)
"""Which chains of nat may share a user chain: its targets are bound to hooks (xt_check_target)."""


@dataclass(slots=True)
class _Chain:
    """A chain, and from where its packets come."""

    name: str
    hooks: frozenset[Hook]
    builtin: bool = False
    rules: list[str] = field(default_factory=list)


class RandomRules:
    """Rules of one seed for one family on the router of `routed`."""

    def __init__(self, random: Random, routed: Routed, spec: ProbeSpec) -> None:
        self._random = random
        self._routed = routed
        self._spec = spec
        self._family = spec.family

    def text(self) -> str:
        """Return input for iptables-restore or ip6tables-restore."""
        tables = [name for name in TABLE_HOOKS if self._random.random() > ABSENT_TABLES]
        return "".join(self._table(name) for name in tables or ["filter"])

    def _table(self, table: str) -> str:
        builtin = [_Chain(hook, frozenset({hook}), builtin=True) for hook in TABLE_HOOKS[table]]
        names = self._random.sample(NAMES, self._random.randint(0, 4))
        users = [_Chain(name, self._user_hooks(table)) for name in names]
        for position, chain in enumerate(users):
            self._fill(table, chain, users[position + 1 :])
        for chain in builtin:
            self._fill(table, chain, users)
        head = [f":{c.name} {self._policy(table) if c.builtin else '-'} [0:0]" for c in builtin]
        head += [f":{chain.name} - [0:0]" for chain in users]
        rules = [f"-A {c.name} {rule}".rstrip() for c in (*builtin, *users) for rule in c.rules]
        return "\n".join([f"*{table}", *head, *rules, "COMMIT", ""])

    def _user_hooks(self, table: str) -> frozenset[Hook]:
        if table == "nat":
            return self._random.choice(NAT_KINDS)
        return frozenset(TABLE_HOOKS[table])

    def _policy(self, table: str) -> str:
        return "DROP" if self._random.random() < DROPPING_POLICY[table] else "ACCEPT"

    def _fill(self, table: str, chain: _Chain, users: Sequence[_Chain]) -> None:
        callees = [user for user in users if chain.hooks <= user.hooks]
        for _ in range(self._random.choice((0, 1, 1, 2, 2, 3, 4))):
            chain.rules.append(self._rule(table, chain, callees))
        if self._random.random() < 0.3:
            chain.rules.append(self._last_rule(table, callees))

    def _last_rule(self, table: str, callees: Sequence[_Chain]) -> str:
        if table != "nat" and self._random.random() < 0.08:
            return "-j DROP"
        targets = ["-j RETURN", "-j RETURN", "-j ACCEPT", ""]
        targets += [f"-j {callee.name}" for callee in callees[:1]]
        return self._random.choice(targets)

    def _rule(self, table: str, chain: _Chain, callees: Sequence[_Chain]) -> str:
        if callees and self._random.random() < 0.4:
            way = self._random.choice(("-j", "-j", "-g"))
            return f"{self._criteria(chain)} {way} {self._random.choice(callees).name}".strip()
        target = self._target(table, chain.hooks)
        needs_ports = "--to-ports" in target or "tcp-reset" in target or self._has_port(target)
        criteria = f"-p {self._word}" if needs_ports else self._criteria(chain)
        if target.startswith(NO_COPY):
            criteria = ""
        return f"{criteria} {target}".strip()

    @property
    def _word(self) -> str:
        return PROTOCOL_WORDS.get(self._spec.protocol, self._spec.protocol)

    def _has_port(self, target: str) -> bool:
        return "--to-" in target and self._spec.dport is not None

    # -- criteria

    def _criteria(self, chain: _Chain) -> str:
        if self._random.random() < 0.35:
            return ""
        routed, family = self._routed, self._family
        choices = [
            f"-p {self._word}",
            "-p sctp",
            f"-s {routed.client.address(family)}",
            f"-d {routed.router.address(family)}",
            f"! -d {routed.backend.address(family)}",
            "-m mark --mark 0x1/0x1",
            "-m mark ! --mark 0x2/0x3",
            "-m connmark --mark 0x1/0x1",
            "-m conntrack --ctstate NEW",
            "-m conntrack --ctstate RELATED,ESTABLISHED",
            "-m conntrack --ctstate UNTRACKED",
            "-m conntrack ! --ctstate DNAT",
            "-m addrtype --dst-type LOCAL",
            r'-m comment --comment "a \"quoted\" -j DROP, TRACE: raw:U:rule:1 "',
        ]
        if chain.hooks <= RECEIVING | {Hook.FORWARD}:
            choices += [f"-i {INSIDE}", "-i lo", f"! -i {OUTSIDE}"]
        if chain.hooks <= SENDING | {Hook.FORWARD}:
            choices += [f"-o {OUTSIDE}", "-o lo", f"! -o {INSIDE}"]
        if self._spec.dport is not None:
            ports = [f"--dport {OPEN}", f"--dport {CLOSED}", f"! --dport {OPEN}", "--dport 1:9000"]
            choices += [f"-p {self._word} -m {self._word} {port}" for port in ports]
        return self._random.choice(choices)

    # -- targets

    def _target(self, table: str, hooks: frozenset[Hook]) -> str:
        choices = [
            "",
            '-j LOG --log-prefix "TRACE: filter:INPUT:rule:1 "',
            f"-j MARK --set-xmark {self._mark()}",
            f"-j MARK --set-xmark {self._mark()}",
            f"-j CONNMARK --set-xmark {self._mark()}",
            "-j CONNMARK --save-mark",
            "-j CONNMARK --restore-mark",
            "-j RETURN",
            "-j RETURN",
            "-j ACCEPT",
            *self._of_table(table),
        ]
        if table == "nat":
            choices += 4 * self._translations(hooks)
        elif self._random.random() < 0.1:
            choices.append("-j DROP")
        return self._random.choice(choices)

    def _of_table(self, table: str) -> list[str]:
        if table == "raw":
            return ["-j CT --notrack", "-j CT --notrack"]
        if table == "mangle":
            far = self._routed.backend.address(self._family)
            ttl = "TTL --ttl-dec 1" if self._family is PacketFamily.IPV4 else "HL --hl-dec 1"
            return [f"{NO_COPY} -j TEE --gateway {far}", f"-j {ttl}"]
        if table == "filter":
            kinds = [*REJECTIONS[self._family], *["tcp-reset"] * 3 * (self._spec.protocol == "tcp")]
            return [f"-j REJECT --reject-with {self._random.choice(kinds)}"]
        return []

    def _mark(self) -> str:
        return self._random.choice(("0x1/0xffffffff", "0x2/0x3", "0x0/0x1", "0x10/0x10"))

    def _translations(self, hooks: frozenset[Hook]) -> list[str]:
        if hooks <= NAT_KINDS[0]:
            return self._destinations()
        far = address_words(self._routed.outside, self._family)
        sources = [f"-j SNAT --to-source {far}"]
        if hooks <= NAT_KINDS[1]:
            sources += ["-j MASQUERADE"]
            if self._spec.dport is not None:
                ports = address_words(self._routed.outside, self._family, SNAT_PORTS[0])
                sources += [f"-j SNAT --to-source {ports}-{SNAT_PORTS[-1]}"]
        return sources

    def _destinations(self) -> list[str]:
        routed, family = self._routed, self._family
        if self._spec.dport is None:
            return [f"-j DNAT --to-destination {routed.backend.address(family)}"]
        return [
            f"-j DNAT --to-destination {address_words(routed.backend, family, OPEN)}",
            f"-j DNAT --to-destination {address_words(routed.router, family, CLOSED)}",
            f"-j REDIRECT --to-ports {OPEN}",
            f"-j REDIRECT --to-ports {CLOSED}",
        ]


def random_spec(random: Random, routed: Routed, family: PacketFamily) -> ProbeSpec:
    """Return a probe: injected, sent by the client's namespace, or by the router itself."""
    protocol = random.choice(("tcp", "tcp", "tcp", "udp", "udp", ECHO[family]))
    dport = random.choice((OPEN, OPEN, CLOSED)) if protocol in ("tcp", "udp") else None
    target = random.choice((routed.router, routed.router, routed.backend))
    words = {"dst": target.address(family), "dport": dport, "netns": (routed.netns,), "wait": 0.3}
    way = random.choice(("injected", "injected", "injected", "client", "local"))
    if way == "local":
        return ProbeSpec(protocol, **words)  # type: ignore[arg-type]
    if way == "client":
        return ProbeSpec(protocol, from_netns=routed.client.netns, **words)  # type: ignore[arg-type]
    sport = None if dport is None else random.randint(20000, 29999)
    return ProbeSpec(
        protocol,
        src=routed.client.address(family),
        sport=sport,
        in_interface=routed.router.interface,
        **words,  # type: ignore[arg-type]
    )


def engines_of(word: str) -> tuple[Backend, ...]:
    """Return the backends that `legacy`, `nft` or `both` stands for."""
    return tuple(Backend) if word == "both" else (Backend(word),)
