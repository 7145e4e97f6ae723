"""Compares what a probe showed with what was expected of it: values in, differences out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ipttrace.checks import Difference
from ipttrace.diagnose.walk import name, packet_before
from ipttrace.lab.expectation import Fields, NatExpectation
from ipttrace.lab.hop_names import HopName
from ipttrace.netfilter import FATAL_VERDICTS, RuleRef
from ipttrace.path import ChainHop, NatHop, PacketPath, Role
from ipttrace.probe import parse_endpoint
from ipttrace.result import TraceResult

NOT_MET = "not met"


def compare(expect: Fields, netns: str | None, result: TraceResult) -> tuple[Difference, ...]:
    """Return where the probe's packets in `netns`, or the client, are not as expected.

    `expect` is that of the run's backend (`Expectation.on`).  Each difference is told once, though
    several packets have it.
    """
    paths = probe_paths(netns, result)
    found = [] if paths else [Difference("packet", netns or "this namespace", "none")]
    seen = {(each.field, each.expected, each.actual) for each in found}
    for each in (
        *(d for path in paths for d in path_differences(expect, path)),
        *client_differences(expect, result),
    ):
        key = (each.field, each.expected, each.actual)
        if key not in seen:
            seen.add(key)
            found.append(each)
    return tuple(found)


def probe_paths(netns: str | None, result: TraceResult) -> list[PacketPath]:
    """Return the ways of the probe's own packets through `netns`."""
    return [path for path in result.paths if path.role is Role.PROBE and path.netns == netns]


def path_differences(expect: Fields, path: PacketPath) -> Iterator[Difference]:
    """Yield where one packet is not as expected."""
    cause = path.diagnosis.cause if path.diagnosis else None
    if expect.outcome is not None and path.outcome is not expect.outcome:
        yield Difference("outcome", expect.outcome, path.outcome, path.id)
    if expect.cause is not None and cause != expect.cause:
        yield Difference("cause", expect.cause, cause or "none", path.id)
    if expect.rule is not None and not decides(HopName.parse(expect.rule), path):
        yield Difference("rule", expect.rule, decision_words(path), path.id)
    if expect.nat is not None:
        yield from _nat(expect.nat, path)
    for missing, after in _missing(expect.crosses, path.chain_hops):
        words = f"{missing} after {after}" if after else missing
        yield Difference("crosses", words, NOT_MET, path.id)
    for words in expect.crosses_not:
        wanted = HopName.parse(words)
        met = next((hop for hop in path.chain_hops if wanted.matches(hop)), None)
        if met is not None:
            yield Difference("crosses-not", f"no {words}", name(met), path.id)


def client_differences(expect: Fields, result: TraceResult) -> Iterator[Difference]:
    """Yield what a client got that is not as expected."""
    if expect.client is not None:
        for word in result.client or ("nothing",):
            if word != expect.client:
                yield Difference("client", expect.client, word)


def deciding(path: PacketPath) -> tuple[ChainHop | RuleRef, ...]:
    """Return what decided a packet's fate.

    That is the rule or policy that killed it; where none did, the first rule that the diagnosis
    names; else, for a packet that lived, whatever ended the walk of each table at each hook, and
    the rules that the diagnosis names: those that dropped its answer.
    """
    hops = path.chain_hops
    if hops and hops[-1].verdict in FATAL_VERDICTS:
        return (hops[-1],)
    if path.diagnosis is not None and path.diagnosis.rules and not _lived(path):
        return (path.diagnosis.rules[0],)
    walks = groupby(hops, key=lambda hop: (hop.hook, hop.priority, _table(hop)))
    named = path.diagnosis.rules if path.diagnosis is not None else ()
    return (*(list(walk)[-1] for _, walk in walks), *named)


def _table(hop: ChainHop) -> tuple[str, str, str]:
    return (hop.chain.backend, hop.chain.table_family, hop.chain.table)


def _lived(path: PacketPath) -> bool:
    return path.outcome in ("delivered", "forwarded", "sent")


def decides(wanted: HopName, path: PacketPath) -> bool:
    """Tell whether the rule or policy decided the packet's fate."""
    return any(
        wanted.matches(each) if isinstance(each, ChainHop) else wanted.matches_ref(each)
        for each in deciding(path)
    )


def decision_words(path: PacketPath) -> str:
    """Return the name of what decided; of a packet that lived, of what let it pass last."""
    found = deciding(path)
    if not found:
        return "none"
    return name(found[-1]) if isinstance(found[-1], ChainHop) else str(found[-1])


def translated(path: PacketPath) -> NatExpectation:
    """Return the packet's addresses and ports as they were last, in both of their forms."""
    packet = packet_before(path, None)
    source = _endpoint(packet.src, packet.sport)
    destination = _endpoint(packet.dst, packet.dport)
    for hop in path.hops:
        if isinstance(hop, NatHop):
            source = hop.source[1] if hop.source else source
            destination = hop.destination[1] if hop.destination else destination
    return NatExpectation(source, destination)


def _endpoint(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _nat(expect: NatExpectation, path: PacketPath) -> Iterator[Difference]:
    actual = translated(path)
    for field in ("source", "destination"):
        wanted, got = getattr(expect, field), getattr(actual, field)
        if wanted is not None and not same_endpoint(wanted, got):
            yield Difference(f"nat.{field}", wanted, got, path.id)


def same_endpoint(wanted: str, got: str) -> bool:
    """Tell whether `got` is the address that is wanted, and the port if one is."""
    address, port = parse_endpoint(wanted)
    other_address, other_port = parse_endpoint(got)
    return address == other_address and port in (None, other_port)


def meetings(crosses: Sequence[str], hops: Sequence[ChainHop]) -> list[int | None]:
    """Return for each of `crosses` the place in `hops` where it is met, in this order.

    A rule and its chain may be met at the same hop.  None for what is not met after those before
    it; the next ones are then looked for as if it had not been asked for.
    """
    found: list[int | None] = []
    least, last = 0, None
    for words in crosses:
        wanted = HopName.parse(words)
        start = least
        if last is not None and last[0].same_chain(wanted) and last[0] != wanted:
            start = last[1]
        place = next((i for i in range(start, len(hops)) if wanted.matches(hops[i])), None)
        found.append(place)
        if place is not None:
            least, last = place + 1, (wanted, place)
    return found


def _missing(crosses: Sequence[str], hops: Sequence[ChainHop]) -> Iterator[tuple[str, str | None]]:
    """Yield what is not met, and after what it was expected; None at the head of the list."""
    before = None
    for words, place in zip(crosses, meetings(crosses, hops), strict=True):
        if place is None:
            yield words, before
        else:
            before = words
