"""Whether a namespace tracks connections, told from its rules."""

from __future__ import annotations

import re

from ipttrace.netfilter import Backend, ChainRef
from ipttrace.ruleset import OWN_TABLE, Rule, Ruleset

TARGETS = frozenset(
    {
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DNAT",
        "MASQUERADE",
        "NETMAP",
        "NOTRACK",
        "REDIRECT",
        "SAME",
        "SNAT",
        "SYNPROXY",
    }
)
"""Targets whose checkentry calls nf_ct_netns_get(), or that act on conntrack entries."""

MATCHES = frozenset(
    {
        "cluster",
        "connbytes",
        "connlabel",
        "connlimit",
        "connmark",
        "conntrack",
        "helper",
        "state",
    }
)

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_XT_WORDS = re.compile(r"(?:^| )-([jm]) (\S+)")
_NFT_WORDS = re.compile(
    r"(?:^|[ {(])(?:ct|masquerade|dnat|snat|redirect|notrack|synproxy)(?=[ ;]|$)"
)


def conntrack_active(ruleset: Ruleset, entry_count: int) -> bool:
    """Return whether connections are tracked: there are entries, or a rule needs them.

    A `ct` expression of ours in a namespace without would switch tracking and defragmentation on.
    """
    if entry_count > 0:
        return True
    rules = (rule for rule in ruleset.rules() if not rule.chain.table.startswith(OWN_TABLE))
    return any(map(_tracks, rules)) or any(map(_is_nft_nat, ruleset.chains))


def _is_nft_nat(ref: ChainRef) -> bool:
    """Return whether a chain is iptables-nft's nat: nf_tables tracks for one, empty or not."""
    return ref.backend is Backend.NFT and ref.table == "nat"


def _tracks(rule: Rule) -> bool:
    text = _QUOTED.sub('""', rule.text)
    if not text.startswith("-A "):
        return _NFT_WORDS.search(text) is not None
    words = _XT_WORDS.findall(text)
    return any(word in (TARGETS if option == "j" else MATCHES) for option, word in words)
