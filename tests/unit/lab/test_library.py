"""The labs that ship with the tool, as texts: what can be told of them without running them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from ipttrace.diagnose.catalogue import Cause
from ipttrace.lab.expectation import Fields
from ipttrace.lab.lab_probe import LabProbe
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import Scenario, library, load_scenario

LABS = {name: load_scenario(name) for name in library()}
SCENARIOS = {
    "redirect-article": {
        "port-redirect",
        "nat-drop-refused",
        "close-old-port",
        "local-refused",
        "local-redirect",
        "article-complete",
        "article-repaired",
    },
    "pictures-article": {
        "chains",
        "expose-loopback",
        "port-to-port",
        "output-dnat",
        "migrate",
        "change-destination",
        "flush-all",
        "in-out-rules",
    },
    "asked": {"docker", "kube-service", "multi-hop"},
}
"""The scenarios that the tool exists for, by group."""
LONGEST = 100
"""Characters of a line of text."""
ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d+\.\d+\.\d+\.\d+|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(?![\w.])"
)
OURS = [
    ip_network(text)
    for text in (
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "127.0.0.0/8",
        "0.0.0.0/32",
        "2001:db8::/32",
        "::/127",
        "fe80::/10",
        "ff00::/8",
    )
]
"""For documentation (RFC 5737, RFC 3849), loopback, any, and what never leaves a link."""

every_lab = pytest.mark.parametrize("lab", LABS.values(), ids=LABS)


def expectations(probe: LabProbe) -> Iterator[Fields]:
    """Yield what a probe expects: of all backends, and of one."""
    yield probe.expect
    yield from (each for each in (probe.expect.legacy, probe.expect.nft) if each is not None)


def texts(lab: Scenario) -> Iterator[str]:
    """Yield everything that a lab tells its reader."""
    yield lab.title
    yield from lab.about.splitlines()
    for claim in lab.claims:
        yield claim.claim
        yield claim.why
    for probe in lab.probes:
        yield probe.say


def test_there_are_at_least_forty() -> None:
    assert len(LABS) >= 40


@pytest.mark.parametrize("group", SCENARIOS)
def test_every_scenario_is_there(group: str) -> None:
    there = {name for name, lab in LABS.items() if lab.group == group}
    assert SCENARIOS[group] <= there
    assert {name for name in LABS if name.startswith("both-backends-")}


@every_lab
def test_a_lab_tells_its_reader_what_it_is(lab: Scenario) -> None:
    assert LABS[lab.name] is lab
    assert 10 <= len(lab.title) <= 80
    assert not lab.title.endswith(".")
    assert len(lab.about) > 80
    assert lab.probes
    assert all(probe.say.endswith(".") for probe in lab.probes)


@every_lab
def test_text_is_plain_and_lines_are_short(lab: Scenario) -> None:
    written = library()[lab.name].read_text(encoding="utf-8")
    assert written.endswith("\n")
    assert [line for line in lab.about.splitlines() if len(line) > LONGEST] == []
    for text in texts(lab):
        assert text.isprintable() or not text
        assert text.isascii()
    assert [each.say for each in lab.probes if len(each.say) > LONGEST] == []


@every_lab
def test_every_claim_has_a_verdict_and_a_reason(lab: Scenario) -> None:
    for claim in lab.claims:
        assert claim.claim.endswith((".", "?")), claim.claim
        assert claim.truth in ("true", "half", "false")
        assert claim.why.endswith("."), claim.claim
        assert claim.probes or lab.refused, claim.claim
    if lab.group in ("redirect-article", "pictures-article"):
        assert lab.claims


@every_lab
def test_every_expectation_says_more_than_what_the_client_sees(lab: Scenario) -> None:
    for probe in lab.probes:
        for backend in lab.backends:
            expect = probe.expect.on(backend)
            named = (expect.cause, expect.rule, expect.nat, *expect.crosses, *expect.crosses_not)
            assert any(named), f"{probe.name}: only {expect}"
            assert expect.outcome is not None, probe.name
        causes = [each.cause for each in expectations(probe) if each.cause is not None]
        assert set(causes) <= set(Cause), probe.name


@every_lab
def test_a_probe_is_short(lab: Scenario) -> None:
    assert sum(probe.wait for probe in lab.probes) <= 20


@every_lab
def test_a_lab_runs_on_both_backends_or_says_why_not(lab: Scenario) -> None:
    if set(lab.backends) != {LabBackend.LEGACY, LabBackend.NFT}:
        assert re.search(r"\bnft|both|backend|legacy", lab.about), lab.about


@every_lab
def test_addresses_are_those_of_documentation(lab: Scenario) -> None:
    written = library()[lab.name].read_text(encoding="utf-8")
    for text in ADDRESS.findall(written):
        try:
            address = ip_address(text)
        except ValueError:
            continue  # a hardware address, or the time of day
        assert any(address in each for each in OURS if each.version == address.version), text


def test_nobody_listens_where_a_lab_expects_nobody() -> None:
    """Labs and tests run side by side: a listener of another namespace is a cause of its own."""
    taken = {8443, 8445}  # listened on all over tests/root
    for lab in LABS.values():
        taken |= {service.port for host in lab.namespaces.values() for service in host.services}
    for lab in LABS.values():
        for probe in lab.probes:
            if any(each.cause == Cause.NO_LISTENER for each in expectations(probe)):
                assert probe.spec().dport not in taken, f"{lab.name}: {probe.name}"
