"""Shared by the tests of diagnoses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ipttrace.diagnose import Case, diagnose
from ipttrace.event import ForeignLog
from ipttrace.evidence import NOTHING, Scene, Trail
from ipttrace.netfilter import Backend
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    ChainHop,
    Diagnosis,
    DropHop,
    Hop,
    Outcome,
    PacketPath,
)
from ipttrace.ruleset import Ruleset
from tests import builders as b

NO_RULES = Ruleset()
BACKENDS = list(Backend)


def why(
    path: PacketPath,
    ruleset: Ruleset = NO_RULES,
    *,
    replies: Sequence[PacketPath] = (),
    client: str | None = None,
    scene: Scene = NOTHING,
    logged: Sequence[ForeignLog] = (),
) -> Diagnosis:
    return diagnose(Case(path, replies, client, ruleset, scene, logged=logged))


def dropped(
    *hops: Hop, outcome: Outcome = Outcome.DROPPED, packet: PacketSummary | None = None
) -> Diagnosis:
    path = b.path(*hops, outcome=outcome)
    return why(path if packet is None else replace(path, packet=packet))


def filter_rule(text: str, chain: str = "INPUT", number: int = 1, **fields: object) -> ChainHop:
    return b.rule_hop("filter", chain, number, text, **fields)  # type: ignore[arg-type]


def texts(diagnosis: Diagnosis) -> list[str]:
    return [each.text for each in diagnosis.evidence]


def freed(location: str | None = "nf_hook_slow", reason: str = "NETFILTER_DROP") -> Trail:
    """Return the trail of a packet that the kernel freed there."""
    return Trail(drops=(DropHop(b.TIME, reason, location),))
