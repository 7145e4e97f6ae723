"""TRACE rules of ours in nf_tables' raw table: inserted by iptables-nft, deleted over netlink.

A rule is found by the tag in its comment, whoever wrote it: iptables keeps a comment in a match of
its own, nft in the rule's user data, and both are plain text in the rule's message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from ipttrace.errors import KernelError, NotSupportedError
from ipttrace.netfilter import (
    INET_HOOKS,
    NFPROTO_NUMBER,
    TABLE_PRIORITIES,
    Hook,
    PacketFamily,
    TableFamily,
)
from ipttrace.system import commands, comments, nft_netlink
from ipttrace.system.netlink_attributes import attribute, nested, number32, string
from ipttrace.system.nfnetlink import (
    NFNL_SUBSYS_NFTABLES,
    NLM_F_CREATE,
    Message,
    NfnetlinkSocket,
    explaining,
    refusal,
)
from ipttrace.system.nft_expressions import comment
from ipttrace.system.nft_netlink import NftObject, NftSocket, StaleError
from ipttrace.system.trace_rule import TraceRule

TABLE = "raw"
MARK = "made by ipttrace"
"""The comment of a table or chain that exists only because of us (since Linux 5.10)."""

# uapi/linux/netfilter/nf_tables.h
TABLE_NAME = 1
"""NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE."""
TABLE_FLAGS = 2
NFT_TABLE_F_OWNER = 2
TABLE_USE = 3
"""NFTA_TABLE_USE: how many chains, sets and objects are in a table."""
CHAIN_NAME = 3
RULE_CHAIN = 2
NFTA_TABLE_USERDATA = 6
NFTA_CHAIN_HOOK = 4
NFTA_CHAIN_TYPE = 7
NFTA_CHAIN_USERDATA = 12
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


def make_chain(family: PacketFamily, hook: Hook) -> None:
    """Make sure that `raw` has its base chain at `hook`; what had to be made bears our mark."""
    table_family = family.table_family
    with NftSocket() as nft:
        tables = [table for table in nft.tables() if _is_raw(table, table_family)]
        chains = [
            c for c in nft.chains() if _is_raw(c, table_family) and c.text(CHAIN_NAME) == hook
        ]
    if chains:
        return
    if any(table.number(TABLE_FLAGS) & NFT_TABLE_F_OWNER for table in tables):
        raise NotSupportedError(
            f"cannot add TRACE rule to raw/{hook} (nf_tables): another program owns the table"
        )
    name = string(TABLE_NAME, TABLE)
    number = NFPROTO_NUMBER[table_family]
    base = nested(
        NFTA_CHAIN_HOOK,
        number32(1, INET_HOOKS.index(hook)),
        number32(2, TABLE_PRIORITIES[TABLE]),
    )
    table = name if tables else name + attribute(NFTA_TABLE_USERDATA, comment(MARK))
    chain = name + string(CHAIN_NAME, hook) + base + string(NFTA_CHAIN_TYPE, "filter")
    chain += attribute(NFTA_CHAIN_USERDATA, comment(MARK))
    make = partial(Message, NFNL_SUBSYS_NFTABLES, family=number, flags=NLM_F_CREATE)
    with explaining(f"make chain {table_family} {TABLE} {hook} (nf_tables)"):
        opened = NfnetlinkSocket()
        try:
            opened.transact([make(0, attributes=table), make(3, attributes=chain)])
        finally:
            opened.close()


def is_made_by_us(family: PacketFamily, hook: Hook) -> bool:
    """Return whether the chain at `hook` bears our mark, and no rule but ours is in it."""
    with NftSocket() as nft:
        if not any(
            _is_raw(chain, family.table_family)
            and chain.text(CHAIN_NAME) == hook
            and _marked(chain)
            for chain in nft.chains()
        ):
            return False
        rules = nft.rules(family.table_family, TABLE)
    return all(_is_tagged(rule) for rule in rules if rule.text(RULE_CHAIN) == hook)


def insert(rule: TraceRule) -> None:
    """Insert a rule at the head of its chain, which exists (`make_chain`)."""
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
    script = f"insert rule {rule.family.table_family} {TABLE} {rule.hook} {rule.native()}\n"
    commands.run(
        ["nft", "-f", "-"], what=f"cannot add TRACE rule to raw/{rule.hook} (nft)", stdin=script
    )


def remove(family: PacketFamily, tag: str | None) -> list[int]:
    """Delete the rules of `raw` that bear `tag`; return their packet counters.

    Chains and table that bear our mark go too, once nobody uses them.
    """
    hits: list[int] = []

    def plan(nft: NftSocket) -> list[Deletion]:
        rules = _rules(nft, family.table_family)
        ours = [rule for rule in rules if tag is not None and bears(rule, tag)]
        hits[:] = [nft_netlink.packets(rule) for rule in ours]
        used = {rule.text(RULE_CHAIN) for rule in rules if rule not in ours}
        return [
            *map(nft_netlink.delete_rule, ours),
            *_made_by_us(nft, family.table_family, used),
        ]

    _delete(f"delete TRACE rule from raw ({family} nf_tables)", plan)
    return hits


def heads(family: PacketFamily, tag: str) -> int:
    """Return how many rules of `raw` bear `tag` and stand before all that are not ours."""
    with NftSocket() as nft:
        rules = _rules(nft, family.table_family)
    others: set[str] = set()
    found = 0
    for rule in rules:
        chain = rule.text(RULE_CHAIN)
        if not _is_tagged(rule):
            others.add(chain)
        found += chain not in others and bears(rule, tag)
    return found


def _rules(nft: NftSocket, family: TableFamily) -> list[NftObject]:
    if not any(_is_raw(table, family) for table in nft.tables()):
        return []
    return nft.rules(family, TABLE)


def _made_by_us(nft: NftSocket, family: TableFamily, used: set[str]) -> Iterable[Deletion]:
    """Yield the deletions of our chains without rules, and of our table without chains."""
    chains = [chain for chain in nft.chains() if _is_raw(chain, family) and _marked(chain)]
    unused = [chain for chain in chains if chain.text(CHAIN_NAME) not in used]
    yield from map(nft_netlink.delete_chain, unused)
    for table in nft.tables():
        if _is_raw(table, family) and _marked(table) and table.number(TABLE_USE) == len(unused):
            yield nft_netlink.delete_table(table)


def _marked(found: NftObject) -> bool:
    return bears(found, MARK)


def _is_tagged(rule: NftObject) -> bool:
    return session_of(rule) is not None


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
    return any(comments.holds(value, tag) for value in rule.attributes.values())


def session_of(rule: NftObject) -> str | None:
    """Return the session whose tag is a rule's comment, None if it is no rule of ours."""
    found = (comments.session_in(value) for value in rule.attributes.values())
    return next((name for name in found if name is not None), None)


def _ours(
    nft: NftSocket, table: NftObject, is_ours: Callable[[NftObject], bool]
) -> list[NftObject]:
    return [rule for rule in nft.rules(table.family, table.text(TABLE_NAME)) if is_ours(rule)]


def _is_raw(found: NftObject, family: TableFamily) -> bool:
    """Return whether this is the raw table, or a chain in it (both name the table first)."""
    return found.family is family and found.text(TABLE_NAME) == TABLE


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
