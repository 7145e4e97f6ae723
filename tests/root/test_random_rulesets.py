"""Random rulesets: every hop that ipttrace shows is the kernel's own, and nothing is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

from ipttrace.netfilter import PacketFamily
from tests.root.equal import EqualPacket
from tests.root.kernel import Listeners, Namespaces
from tests.root.random_rules import RandomRules, engines_of, random_spec
from tests.root.routed import build_routed
from tests.root.trial import Trial

SEEDS = {"fast": 25, "deep": 400}[os.environ.get("IPTTRACE_HYPOTHESIS", "fast")]
"""Rulesets for each family and each choice of engines."""


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("engines", ["legacy", "nft", "both"])
def test_every_hop_is_the_kernels(
    namespaces: Namespaces, listen: Listeners, engines: str, family: PacketFamily, seed: int
) -> None:
    random = Random(f"{engines} {family} {seed}")
    routed = build_routed(namespaces)
    spec = random_spec(random, routed, family)
    backends = random.sample(engines_of(engines), len(engines_of(engines)))
    rules = {backend: RandomRules(random, routed, spec).text() for backend in backends}
    trial = Trial(routed, spec, rules)
    with explained(trial):
        trial.listen(listen)
        trial.load()
        trial.probe()
        trial.check_probe()
        equal = EqualPacket(trial)
        equal.send()
        equal.check()


@contextmanager
def explained(trial: Trial) -> Iterator[None]:
    """Add the ruleset and what was traced to a failure."""
    try:
        yield
    except BaseException as error:
        error.add_note(trial.description())
        raise
