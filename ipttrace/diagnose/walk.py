"""Along a path: who called a chain, and what the packet was like at each hop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ipttrace.event import TraceKind
from ipttrace.netfilter import Hook, PacketFamily, TableFamily, Verdict
from ipttrace.packet import PacketSummary
from ipttrace.path import ChainHop, Change, Decision, Hop, PacketPath, RouteHop

CALLS = frozenset({Verdict.JUMP, Verdict.GOTO})


def callers(hops: Sequence[ChainHop]) -> list[tuple[ChainHop, ...]]:
    """Return, for each hop, the rules whose JUMP or GOTO led to its chain, outermost first.

    A hop of a chain that the walk is already in ends the chains called since; a hop that nothing
    called begins a new walk.
    """
    found: list[tuple[ChainHop, ...]] = []
    stack: list[tuple[ChainHop | None, ChainHop]] = []
    for hop in hops:
        while stack and stack[-1][1].chain != hop.chain and _in_walk(stack, hop):
            stack.pop()
        previous = stack[-1][1] if stack else None
        if previous is not None and previous.chain == hop.chain and previous.hook == hop.hook:
            stack[-1] = (stack[-1][0], hop)
        elif previous is not None and _leads_to(previous, hop):
            stack.append((previous, hop))
        else:
            stack = [(None, hop)]
        found.append(tuple(caller for caller, _ in stack if caller is not None))
    return found


def _in_walk(stack: Iterable[tuple[ChainHop | None, ChainHop]], hop: ChainHop) -> bool:
    return any(each.chain == hop.chain and each.hook == hop.hook for _, each in stack)


def _leads_to(caller: ChainHop, hop: ChainHop) -> bool:
    return (
        caller.verdict in CALLS
        and caller.hook == hop.hook
        and replace(caller.chain, chain=hop.chain.chain) == hop.chain
    )


def depths(hops: Iterable[Hop]) -> list[int]:
    """Return how many chains deep each hop is; 0 in base chains and for hops of other kinds."""
    hops = list(hops)
    nested = iter(callers([hop for hop in hops if isinstance(hop, ChainHop)]))
    return [len(next(nested)) if isinstance(hop, ChainHop) else 0 for hop in hops]


def mark_before(path: PacketPath, hop: ChainHop | None) -> int:
    """Return the packet's mark when it met `hop`; None: as it was last."""
    mark = path.mark
    for change in _changes_before(path, hop):
        if change.field == "mark" and isinstance(change.new, int):
            mark = change.new
    return mark


def last_change(path: PacketPath, field: str) -> ChainHop | None:
    """Return the last hop that changed a field of the packet."""
    hops = reversed(path.chain_hops)
    return next((hop for hop in hops if any(each.field == field for each in hop.changes)), None)


def packet_before(path: PacketPath, hop: ChainHop | None) -> PacketSummary:
    """Return the packet as it was when it met `hop`; None: as it was last seen."""
    fields = {
        change.field: change.new
        for change in _changes_before(path, hop)
        if change.field in ("src", "dst", "sport", "dport", "ttl")
    }
    return replace(path.packet, **fields)  # type: ignore[arg-type]


def endpoint(packet: PacketSummary) -> str:
    """Return where a packet goes: `address:port`, or the address alone."""
    if packet.dport is None:
        return packet.dst
    address = f"[{packet.dst}]" if packet.family is PacketFamily.IPV6 else packet.dst
    return f"{address}:{packet.dport}"


def _changes_before(path: PacketPath, hop: ChainHop | None) -> Iterator[Change]:
    for each in path.chain_hops:
        if each is hop:
            return
        yield from each.changes


def made_here(path: PacketPath) -> bool:
    """Return whether this namespace made the packet itself: its first chain is at OUTPUT.

    One that came in may meet a bridge's OUTPUT first; one that met no chain but ours came in by an
    interface, or by none.  With nft there may be no chain at OUTPUT: what is made here for this
    host then meets its first one as it comes in again on lo.
    """
    hops = path.chain_hops
    if not hops:
        routed = any(isinstance(h, RouteHop) and h.decision is Decision.OUTPUT for h in path.hops)
        return path.in_interface is None and (routed or bool(path.reports))
    bridged = hops[0].chain.table_family is TableFamily.BRIDGE
    if hops[0].hook is Hook.OUTPUT:
        return not (bridged and path.in_interface)
    by_lo = path.in_interface in (None, "lo") and path.physical_in is None
    return by_lo and not bridged and hops[0].hook in (Hook.PREROUTING, Hook.INPUT)


def with_port(interface: str | None, port: str | None) -> str:
    """Return an interface's name, with the port where it is a bridge's: `br0 (port eth1)`."""
    if interface is None:
        return "an unknown interface"
    return interface if port in (None, interface) else f"{interface} (port {port})"


def stayed_here(path: PacketPath) -> bool:
    """Return whether this namespace made the packet for itself: it goes over lo."""
    back = any(hop.hook in (Hook.PREROUTING, Hook.INPUT) for hop in path.chain_hops)
    return made_here(path) and (back or path.out_interface == "lo")


def name(hop: ChainHop) -> str:
    """Return what a user calls the hop: `filter/INPUT 1`, or `filter/INPUT policy`."""
    if hop.event is TraceKind.RULE:
        return str(hop.ref)
    return f"{hop.chain} {'policy' if hop.event is TraceKind.POLICY else 'end'}"
