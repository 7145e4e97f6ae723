"""Reading which tables the calling thread's namespace has, and what of ours is in them.

To read changes nothing: only tables that exist are asked for, and nf_tables only where it is in
the kernel already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ipttrace.checkup.facts import PRESENT, Presence, Table, Tables, Unknown
from ipttrace.decode.iptables_save import decode_iptables_save, split_words
from ipttrace.netfilter import INET_HOOKS, Backend, Hook, PacketFamily, TableFamily, Verdict
from ipttrace.ruleset import OWN_TABLE, TAG, Chain, Ruleset
from ipttrace.system import commands, legacy_rules, nft_rules
from ipttrace.system.comments import SESSION_LENGTH
from ipttrace.system.netlink_attributes import parse
from ipttrace.system.nft_netlink import NftObject, NftSocket, StaleError
from ipttrace.system.nft_rules import CHAIN_NAME, RULE_CHAIN, TABLE_NAME
from ipttrace.system.reading import attempt, text_of

ATTEMPTS = 5
"""How often rules are read anew that change while they are read."""

# uapi/linux/netfilter/nf_tables.h
NFT_TABLE_F_DORMANT = 1
NFTA_CHAIN_POLICY = 5
NFTA_HOOK_HOOKNUM = 1
NF_DROP = 0

OWN_COMMENT = re.compile(rf"{TAG}([a-z0-9]{{1,{SESSION_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Own:
    """A thing of ours; session None: it is of use to any session."""

    session: str | None
    what: str


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The tables of both engines, and what in them is ours."""

    legacy: Tables
    nft: Tables
    own: tuple[Own, ...] | Unknown


Found = tuple[list[Table], list[Own]]


def read_tables(nf_tables: Presence | Unknown) -> TableFacts:
    """Read the tables; `nf_tables` tells whether that engine may be asked."""
    legacy = attempt(_read_legacy)
    nft = nf_tables if isinstance(nf_tables, Unknown) else attempt(lambda: _read_nft(nf_tables))
    if isinstance(legacy, Unknown) or isinstance(nft, Unknown):
        unread = legacy if isinstance(legacy, Unknown) else nft
        assert isinstance(unread, Unknown)
        return TableFacts(_tables(legacy), _tables(nft), unread)
    return TableFacts(_tables(legacy), _tables(nft), (*legacy[1], *nft[1]))


def _tables(found: Found | Unknown) -> Tables:
    return found if isinstance(found, Unknown) else tuple(found[0])


# -- iptables-legacy


def _read_legacy() -> Found:
    tables: list[Table] = []
    own: list[Own] = []
    for family in PacketFamily:
        names = (text_of(legacy_rules.TABLE_NAMES[family]) or "").split()
        if names:
            rules = _saved(family)
            tables += [_legacy_table(rules, family.table_family, name) for name in names]
            own += _legacy_own(rules, family)
    return tables, own


def _saved(family: PacketFamily) -> Ruleset:
    program = f"{'iptables' if family is PacketFamily.IPV4 else 'ip6tables'}-legacy-save"
    text = commands.run([program], what=f"cannot read the rules of iptables-legacy ({family})")
    return decode_iptables_save(text, Backend.LEGACY, family.table_family)


def _legacy_table(rules: Ruleset, family: TableFamily, name: str) -> Table:
    chains = [chain for ref, chain in rules.chains.items() if ref.table == name]
    return Table(
        Backend.LEGACY,
        family,
        name,
        rules=sum(len(chain.user_rules) for chain in chains),
        drops=tuple(chain.ref.chain for chain in chains if chain.policy is Verdict.DROP),
        forwards=any(chain.hook is Hook.FORWARD and chain.user_rules for chain in chains),
    )


def _legacy_own(rules: Ruleset, family: PacketFamily) -> list[Own]:
    return [
        Own(session, f"TRACE rule of session {session} in raw ({family}, iptables-legacy)")
        for ref, chain in rules.chains.items()
        if ref.table == legacy_rules.TABLE
        for session in _sessions(chain)
    ]


def _sessions(chain: Chain) -> list[str]:
    own = (rule for rule in chain.rules if rule.own)
    found = (OWN_COMMENT.fullmatch(word) for rule in own for word in split_words(rule.text))
    return [match[1] for match in found if match]


# -- nf_tables


def _read_nft(presence: Presence) -> Found:
    if presence not in PRESENT:
        return [], []
    for _ in range(ATTEMPTS):
        try:
            with NftSocket() as nft:
                return _dump(nft)
        except StaleError:
            continue
    raise OSError("the rules change all the time")


def _dump(nft: NftSocket) -> Found:
    tables: list[Table] = []
    own: list[Own] = []
    chains = nft.chains()
    for table in nft.tables():
        name = table.text(TABLE_NAME)
        inside = [chain for chain in chains if _in(chain, table)]
        if name.startswith(OWN_TABLE):
            session = name.removeprefix(OWN_TABLE)
            own.append(Own(session, f"nft table {table.family} {name}"))
        else:
            rules = nft.rules(table.family, name)
            ours = [rule for rule in rules if _may_be_ours(rule) and nft_rules.session_of(rule)]
            tables.append(_nft_table(table, inside, [rule for rule in rules if rule not in ours]))
            own += map(_own_rule, ours)
            own += _own_chains(table, inside, rules)
    return tables, own


def _in(chain: NftObject, table: NftObject) -> bool:
    return chain.family is table.family and chain.text(TABLE_NAME) == table.text(TABLE_NAME)


def _may_be_ours(rule: NftObject) -> bool:
    return any(TAG.encode() in value for value in rule.attributes.values())


def _nft_table(table: NftObject, chains: Sequence[NftObject], rules: Sequence[NftObject]) -> Table:
    used = {rule.text(RULE_CHAIN) for rule in rules}
    return Table(
        Backend.NFT,
        table.family,
        table.text(TABLE_NAME),
        rules=len(rules),
        drops=tuple(chain.text(CHAIN_NAME) for chain in chains if _drops(chain)),
        forwards=any(_is_forward(chain) and chain.text(CHAIN_NAME) in used for chain in chains),
        dormant=bool(table.number(nft_rules.TABLE_FLAGS) & NFT_TABLE_F_DORMANT),
    )


def _drops(chain: NftObject) -> bool:
    policy = chain.attributes.get(NFTA_CHAIN_POLICY)
    return policy is not None and int.from_bytes(policy, "big") == NF_DROP


def _is_forward(chain: NftObject) -> bool:
    hook = chain.attributes.get(nft_rules.NFTA_CHAIN_HOOK)
    if hook is None:
        return False
    number = int.from_bytes(parse(hook).get(NFTA_HOOK_HOOKNUM, b""), "big")
    return number == INET_HOOKS.index(Hook.FORWARD)


def _own_rule(rule: NftObject) -> Own:
    session = nft_rules.session_of(rule)
    place = f"{rule.family} {rule.text(TABLE_NAME)}/{rule.text(RULE_CHAIN)}"
    return Own(session, f"TRACE rule of session {session} in {place} (nf_tables)")


def _own_chains(
    table: NftObject, chains: Sequence[NftObject], rules: Sequence[NftObject]
) -> list[Own]:
    """Return the chains that exist only because of us, and that nobody uses."""
    used = {rule.text(RULE_CHAIN) for rule in rules}
    names = [chain.text(CHAIN_NAME) for chain in chains if nft_rules.bears(chain, nft_rules.MARK)]
    place = f"{table.family} {table.text(TABLE_NAME)}"
    return [
        Own(None, f"empty chain {place}/{name} (nf_tables)") for name in names if name not in used
    ]
