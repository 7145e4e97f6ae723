"""The way that each probe of a lab is meant to take, before it is sent."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.lab.scenario import Scenario


def ways(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Yield each probe's name, and its way through the namespaces that are traced."""
    for probe in scenario.probes:
        names = " ==> ".join(f"[{name}]" for name in probe.netns)
        if probe.in_interface is not None:
            who = probe.spec().src or "outside"
            way = f"{who} ==> {probe.in_interface} {names}"
        elif probe.from_netns is not None and probe.from_netns not in probe.netns[:1]:
            way = f"{probe.from_netns} ==> {names}"
        else:
            way = f"made in {names}"
        yield probe.name, way
