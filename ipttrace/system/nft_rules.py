"""TRACE rules of ours in nf_tables' raw table: inserted by iptables-nft, deleted over netlink.

A rule is found by the tag in its comment, whoever wrote it: iptables keeps a comment in a match of
its own, nft in the rule's user data, and both are plain text in the rule's message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.netfilter import Backend, ChainRef, Hook, PacketFamily, TableFamily
from ipttrace.system import commands, nft_netlink
from ipttrace.system.nfnetlink import refusal
from ipttrace.system.nft_netlink import NftObject, NftSocket, StaleError
from ipttrace.system.trace_rule import TraceRule

TABLE = "raw"
ATTEMPTS = 100
"""How often a deletion is tried again because somebody else changed rules in between."""

ABSENT = ("missing kernel module", "No such file or directory", "not supported", "incompatible")
"""What iptables-nft says where a module is absent, or where the table is not of its own making."""

Deletion = tuple[int, TableFamily, bytes]


def available() -> bool:
    """Return whether the kernel has nf_tables (asking loads the module)."""
    try:
        with NftSocket() as nft:
            nft.generation()
    except (NotSupportedError, OSError):
        return False
    return True


def raw_chains(family: PacketFamily) -> frozenset[ChainRef] | None:
    """Return the chains of the raw table in the calling thread's namespace, None without table."""
    with NftSocket() as nft:
        table_family = family.table_family
        if not any(_is_raw(table, table_family) for table in nft.tables()):
            return None
        return frozenset(
            ChainRef(Backend.NFT, table_family, TABLE, chain.text(3))
            for chain in nft.chains()
            if _is_raw(chain, table_family)
        )


def insert(rule: TraceRule) -> None:
    """Insert a rule at the head of its chain; iptables-nft makes the table and chain if needed."""
    program = "iptables-nft" if rule.family is PacketFamily.IPV4 else "ip6tables-nft"
    what = f"cannot add TRACE rule to raw/{rule.hook} ({program})"
    if commands.find(program) is None:
        _insert_natively(rule)
        return
    finished = commands.start(
        [program, "-t", TABLE, "-I", rule.hook, *rule.arguments()], what=what
    ).finish()
    if finished.code != 0:
        raise _refused(what, finished.complaint)


def _refused(what: str, complaint: str) -> KernelError | NotSupportedError:
    if any(word in complaint for word in ABSENT):
        return NotSupportedError(f"{what}: {complaint}", "Try --trigger owner.")
    return KernelError(f"{what}: {complaint}")


def _insert_natively(rule: TraceRule) -> None:
    place = f"{rule.family.table_family} {TABLE}"
    hook = "prerouting" if rule.hook is Hook.PREROUTING else "output"
    script = (
        f"add table {place}\n"
        f"add chain {place} {rule.hook} {{ type filter hook {hook} priority -300; }}\n"
        f"insert rule {place} {rule.hook} {rule.native()}\n"
    )
    commands.run(
        ["nft", "-f", "-"], what=f"cannot add TRACE rule to raw/{rule.hook} (nft)", stdin=script
    )


@dataclass(slots=True)
class Made:
    """What exists only because of us; it goes with our last rule if nobody else uses it."""

    chains: set[str] = field(default_factory=set)
    table: bool = False


def remove(family: PacketFamily, tag: str, made: Made) -> list[int]:
    """Delete the rules of `raw` that bear `tag`, and what we made; return packet counters."""
    what = f"delete TRACE rule from raw ({family} nf_tables)"
    hits: list[int] = []

    def plan(nft: NftSocket) -> list[Deletion]:
        rules = _rules(nft, family.table_family)
        ours = [rule for rule in rules if bears(rule, tag)]
        hits[:] = [nft_netlink.packets(rule) for rule in ours]
        kept = {rule.text(2) for rule in rules if rule not in ours}
        return [
            *map(nft_netlink.delete_rule, ours),
            *_made(nft, family.table_family, made, kept),
        ]

    _delete(what, plan)
    return hits


def _rules(nft: NftSocket, family: TableFamily) -> list[NftObject]:
    if not any(_is_raw(table, family) for table in nft.tables()):
        return []
    return nft.rules(family, TABLE)


def _made(nft: NftSocket, family: TableFamily, made: Made, kept: set[str]) -> Iterable[Deletion]:
    """Yield the deletions of our chains without rules, and of our table without chains."""
    chains = [chain for chain in nft.chains() if _is_raw(chain, family)]
    ours = [c for c in chains if c.text(3) in made.chains and c.text(3) not in kept]
    yield from map(nft_netlink.delete_chain, ours)
    for table in nft.tables():
        # NFTA_TABLE_USE counts chains, sets and objects.
        if made.table and _is_raw(table, family) and table.number(3) == len(ours):
            yield nft_netlink.delete_table(table)


def remove_everywhere(is_ours: Callable[[NftObject], bool]) -> list[NftObject]:
    """Delete the rules of any table for which `is_ours` says so; return them."""
    found: list[NftObject] = []

    def plan(nft: NftSocket) -> list[Deletion]:
        found[:] = [rule for table in nft.tables() for rule in _ours(nft, table, is_ours)]
        return list(map(nft_netlink.delete_rule, found))

    _delete("delete TRACE rules (nf_tables)", plan)
    return found


def remove_tables(is_ours: Callable[[NftObject], bool]) -> list[NftObject]:
    """Delete the tables for which `is_ours` says so; return them."""
    found: list[NftObject] = []

    def plan(nft: NftSocket) -> list[Deletion]:
        found[:] = [table for table in nft.tables() if is_ours(table)]
        return list(map(nft_netlink.delete_table, found))

    _delete("delete tables of dead sessions (nf_tables)", plan)
    return found


def bears(rule: NftObject, tag: str) -> bool:
    """Return whether a rule's comment is `tag`."""
    return any(tag.encode() + b"\0" in value for value in rule.attributes.values())


def _ours(
    nft: NftSocket, table: NftObject, is_ours: Callable[[NftObject], bool]
) -> list[NftObject]:
    return [rule for rule in nft.rules(table.family, table.text(1)) if is_ours(rule)]


def _is_raw(found: NftObject, family: TableFamily) -> bool:
    """Return whether this is the raw table, or a chain in it (both name the table first)."""
    return found.family is family and found.text(1) == TABLE


def _delete(what: str, plan: Callable[[NftSocket], list[Deletion]]) -> None:
    """Carry out a plan in one batch; plan anew whenever the rules changed meanwhile."""
    for _ in range(ATTEMPTS):
        try:
            with NftSocket() as nft:
                generation = nft.generation()
                deletions = plan(nft)
                if deletions:
                    nft.batch(generation, deletions)
                return
        except StaleError:
            continue
        except OSError as error:
            raise refusal(what, error) from error
    raise KernelError(
        f"cannot {what}: somebody else keeps changing the rules", "Try: ipttrace clean"
    )
