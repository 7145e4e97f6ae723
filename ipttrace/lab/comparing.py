"""Compares what a probe showed with what was expected of it: values in, differences out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ipttrace.checks import Agreement, Difference, Step
from ipttrace.diagnose.walk import name, packet_before
from ipttrace.lab.expectation import Fields, NatExpectation
from ipttrace.lab.hop_names import HopName
from ipttrace.netfilter import FATAL_VERDICTS, RuleRef
from ipttrace.path import ChainHop, Hop, NatHop, PacketPath, Role, TraceResult
from ipttrace.probe import parse_endpoint

NOT_MET = "not met"
DECIDES = " decides"


def compare(expect: Fields, netns: str | None, result: TraceResult) -> tuple[Difference, ...]:
    """Return where the probe's packets in `netns`, or the client, are not as expected.

    `expect` is that of the run's backend (`Expectation.on`).  Each difference is told once, though
    several packets have it.
    """
    paths = probe_paths(netns, result)
    found = [] if paths else [Difference("packet", netns or "this namespace", "none")]
    seen = {(each.field, each.expected, each.actual) for each in found}
    for each in (*(d for path in paths for d in _of_path(expect, path)), *_client(expect, result)):
        key = (each.field, each.expected, each.actual)
        if key not in seen:
            seen.add(key)
            found.append(each)
    return tuple(found)


def probe_paths(netns: str | None, result: TraceResult) -> list[PacketPath]:
    """Return the ways of the probe's own packets through `netns`."""
    return [path for path in result.paths if path.role is Role.PROBE and path.netns == netns]


def parting_ways(
    expect: Fields, netns: str | None, result: TraceResult
) -> tuple[tuple[Step, ...], ...]:
    """Return the expected beside the actual way of each packet that is not as expected."""
    client = tuple(_client(expect, result))
    return tuple(
        tuple(steps(expect, path, result.client))
        for path in probe_paths(netns, result)
        if client or any(True for _ in _of_path(expect, path))
    )


def _of_path(expect: Fields, path: PacketPath) -> Iterator[Difference]:
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


def _client(expect: Fields, result: TraceResult) -> Iterator[Difference]:
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


def steps(expect: Fields, path: PacketPath, client: Sequence[str] = ()) -> Iterator[Step]:
    """Yield the expected beside the actual way, from the first hop to the client's result."""
    notes, alone = _notes(expect, path)
    number = 0
    for hop in path.hops:
        if not isinstance(hop, ChainHop):
            yield Step(Agreement.FREE, hop=hop)
            continue
        yield from alone.get(number, ())
        yield _noted(hop, notes.get(number, []))
        number += 1
    yield from alone.get(number, ())
    yield from _ending(expect, path, client)


Note = tuple[Agreement, str]


def _noted(hop: Hop, notes: Sequence[Note]) -> Step:
    if not notes:
        return Step(Agreement.FREE, hop=hop)
    parts = any(agreement is Agreement.PARTS for agreement, _ in notes)
    shown = [text for agreement, text in notes if not parts or agreement is Agreement.PARTS]
    said = [text for text in dict.fromkeys(shown) if f"{text}{DECIDES}" not in shown]
    return Step(Agreement.PARTS if parts else Agreement.MET, ", ".join(said), hop)


def _notes(expect: Fields, path: PacketPath) -> tuple[dict[int, list[Note]], dict[int, list[Step]]]:
    """Return what was expected at each chain hop, and what was expected before it in vain."""
    hops = path.chain_hops
    notes: dict[int, list[Note]] = {}
    alone: dict[int, list[Step]] = {}
    places = meetings(expect.crosses, hops)
    for index, (words, place) in enumerate(zip(expect.crosses, places, strict=True)):
        if place is not None:
            notes.setdefault(place, []).append((Agreement.MET, words))
            continue
        least = max((p + 1 for p in places[:index] if p is not None), default=0)
        most = next((p for p in places[index + 1 :] if p is not None), len(hops))
        _place(HopName.parse(words), words, hops, range(least, most), notes, alone)
    for words in expect.crosses_not:
        wanted = HopName.parse(words)
        for place, hop in enumerate(hops):
            if wanted.matches(hop):
                notes.setdefault(place, []).append((Agreement.PARTS, f"no {words}"))
    if expect.rule is not None:
        _decision(expect.rule, path, notes, alone)
    return notes, alone


def _place(
    wanted: HopName,
    words: str,
    hops: Sequence[ChainHop],
    between: range,
    notes: dict[int, list[Note]],
    alone: dict[int, list[Step]],
) -> None:
    """Set what is missing beside a hop of its own chain, else on a line of its own."""
    place = next((i for i in between if wanted.in_chain(hops[i])), None)
    if place is not None:
        notes.setdefault(place, []).append((Agreement.PARTS, words))
    else:
        alone.setdefault(between.stop, []).append(
            Step(Agreement.PARTS, words, topic="-", actual=NOT_MET)
        )


def _decision(
    words: str,
    path: PacketPath,
    notes: dict[int, list[Note]],
    alone: dict[int, list[Step]],
) -> None:
    wanted, hops = HopName.parse(words), path.chain_hops
    if decides(wanted, path):
        places = [place for place, hop in enumerate(hops) if wanted.matches(hop)]
        for place in places[-1:]:
            notes.setdefault(place, []).append((Agreement.MET, f"{words}{DECIDES}"))
        return
    same = [place for place, hop in enumerate(hops) if wanted.in_chain(hop)]
    place = same[-1] if same else len(hops) - 1
    if place >= 0:
        notes.setdefault(place, []).append((Agreement.PARTS, f"{words}{DECIDES}"))
    else:
        alone.setdefault(0, []).append(Step(Agreement.PARTS, f"{words}{DECIDES}", topic="-"))


def _ending(expect: Fields, path: PacketPath, client: Sequence[str]) -> Iterator[Step]:
    cause = path.diagnosis.cause if path.diagnosis else "none"
    yield _said("outcome", expect.outcome, path.outcome)
    if expect.cause is not None:
        yield _said("cause", expect.cause, cause)
    if expect.nat is not None:
        actual = translated(path)
        for field in ("source", "destination"):
            wanted, got = getattr(expect.nat, field), getattr(actual, field)
            if wanted is not None:
                met = same_endpoint(wanted, got)
                agreement = Agreement.MET if met else Agreement.PARTS
                yield Step(agreement, wanted, topic=field, actual=got)
    if expect.client is not None:
        words = sorted(set(client)) or ["nothing"]
        yield _said("client", expect.client, ", ".join(words))


def _said(topic: str, wanted: str | None, got: str) -> Step:
    if wanted is None:
        return Step(Agreement.FREE, topic=topic, actual=got)
    agreement = Agreement.MET if wanted == got else Agreement.PARTS
    return Step(agreement, wanted, topic=topic, actual=got)
