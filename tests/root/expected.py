"""What the hops that ipttrace shows say of a packet, in the words of the independent readers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from ipttrace.event import TraceKind
from ipttrace.netfilter import Backend, Verdict
from ipttrace.path import ChainHop, Hop, NatHop, PacketPath
from tests.root.footprint import Place
from tests.root.oracle import BUILTIN, Headers, Spot

ENDS_PACKET = frozenset({Verdict.DROP, Verdict.REJECT})
ENDS_TABLE = frozenset({Verdict.ACCEPT})
ENTERS_CHAIN = frozenset({Verdict.JUMP, Verdict.GOTO})


@dataclass(frozen=True, slots=True)
class Told:
    """One hop, and the state of its packet right before and after it, as the path tells it."""

    path: PacketPath
    hop: ChainHop
    before: State
    after: State

    def __str__(self) -> str:
        return f"packet {self.path.id}, {self.spot}: {self.before} to {self.after}"

    @property
    def spot(self) -> Spot:
        """The hop in the readers' words."""
        chain = self.hop.chain
        number = self.hop.number
        return Spot(
            chain.backend, chain.table_family, chain.table, chain.chain, self.hop.event, number
        )

    @property
    def verdict(self) -> str | None:
        """The verdict in nf_tables' words: a REJECT target sends its answer, and drops."""
        verdict = self.hop.verdict
        return "DROP" if verdict is Verdict.REJECT else verdict and verdict.value


@dataclass(frozen=True, slots=True)
class State:
    """What can change on a packet's way."""

    headers: Headers
    mark: int


def told(paths: Iterable[PacketPath]) -> list[Told]:
    """Return the chain hops of all packets in the order in which they were reported."""
    hops = [one for path in paths for one in _told(path)]
    return sorted(hops, key=lambda one: one.hop.time)


def _told(path: PacketPath) -> Iterator[Told]:
    state = initial(path)
    for hop in path.hops:
        following = changed(state, hop)
        if isinstance(hop, ChainHop):
            yield Told(path, hop, state, following)
        state = following


def initial(path: PacketPath) -> State:
    """Return the packet as it was first seen."""
    packet = path.packet
    return State(Headers(packet.src, packet.dst, packet.sport, packet.dport), path.mark)


def final(path: PacketPath) -> Headers:
    """Return the addresses with which the packet ended."""
    state = initial(path)
    for hop in path.hops:
        state = changed(state, hop)
    return state.headers


def changed(state: State, hop: Hop) -> State:
    """Return the state after a hop; what it says to have changed must be what was there."""
    if isinstance(hop, NatHop):
        return _translated(state, hop)
    for change in hop.changes if isinstance(hop, ChainHop) else ():
        if change.field == "mark":
            assert change.old == state.mark, f"{hop} changed {change}, the mark was {state.mark}"
            state = replace(state, mark=int(change.new or 0))
        elif change.field != "ttl":
            old = getattr(state.headers, change.field)
            assert change.old == old, f"{hop} changed {change}, it was {old}"
            values = {**asdict(state.headers), change.field: change.new}
            headers = Headers(**values)
            state = replace(state, headers=headers)
    return state


def _translated(state: State, hop: NatHop) -> State:
    """A nat hop sums up: the rule that translated may have said so already."""
    headers = state.headers
    if hop.source is not None:
        assert endpoint(headers.src, headers.sport) in hop.source, f"{hop} of {headers}"
        address, port = parsed(hop.source[1])
        headers = replace(headers, src=address, sport=port)
    if hop.destination is not None:
        assert endpoint(headers.dst, headers.dport) in hop.destination, f"{hop} of {headers}"
        address, port = parsed(hop.destination[1])
        headers = replace(headers, dst=address, dport=port)
    return replace(state, headers=headers)


def endpoint(address: str, port: int | None) -> str:
    """Return `address:port` as a nat hop writes it."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parsed(text: str) -> tuple[str, int | None]:
    """Return address and port of what `endpoint` wrote."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
        return address, int(port)
    if text.count(":") != 1:
        return text, None
    address, _, port = text.partition(":")
    return address, int(port)


def hits(paths: Iterable[PacketPath]) -> Counter[Place]:
    """Return how often each rule and policy was met."""
    met: Counter[Place] = Counter()
    for path in paths:
        for hop in path.chain_hops:
            if hop.event is not TraceKind.RETURN:
                met[place(hop)] += 1
    return met


def place(hop: ChainHop) -> Place:
    """Return where a hop's counter stands."""
    return hop.chain.backend, hop.chain.table, hop.chain.chain, hop.number or 0


def check_walk(path: PacketPath) -> None:
    """Fail unless each hop's verdict leads to the next hop."""
    hops = path.chain_hops
    for hop, following in itertools.zip_longest(hops, hops[1:]):
        assert leads(hop, following), f"{hop}\ndoes not lead to\n{following}"


def leads(hop: ChainHop, following: ChainHop | None) -> bool:
    """Tell whether a hop's verdict leads to the following hop, as far as its backend tells."""
    if hop.verdict in ENDS_PACKET:
        return following is None
    if following is None:
        return hop.verdict in ENDS_TABLE or hop.verdict is Verdict.CONTINUE
    same = walk(hop) == walk(following)
    if hop.verdict in ENDS_TABLE:
        return not same
    if hop.verdict in ENTERS_CHAIN:
        return same and (entered(hop, following) or hop.chain.backend is Backend.NFT)
    if hop.verdict is Verdict.RETURN:
        return same and returned(hop, following)
    further = hop.chain == following.chain and (following.number or 99) > (hop.number or 0)
    return same and (further or hop.chain.backend is Backend.NFT)


def walk(hop: ChainHop) -> Sequence[object]:
    """Return what stays the same in one walk of a base chain."""
    return hop.chain.backend, hop.chain.table_family, hop.chain.table, hop.hook


def entered(hop: ChainHop, following: ChainHop) -> bool:
    """Tell whether the following hop is in the chain that a jump leads to."""
    return following.chain.chain == hop.target


def returned(hop: ChainHop, following: ChainHop) -> bool:
    """Tell whether the following hop is where a RETURN leads: the caller, or the policy."""
    if hop.chain.chain in BUILTIN:
        return following.event is TraceKind.POLICY and following.chain == hop.chain
    return following.chain != hop.chain
