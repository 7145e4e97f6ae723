"""The topology of a lab as a picture."""

from __future__ import annotations

from ipttrace.lab.scenario import Scenario
from ipttrace.render.picture import Canvas, Look, Picture


def topology_picture(scenario: Scenario, _width: int) -> Picture:
    """Return one line a link: the namespaces at its ends, with their addresses."""
    canvas = Canvas()
    linked = {end.namespace for link in scenario.links for end in link}
    row = 0
    for near, far in scenario.links:
        column = 0
        for end, mark in ((near, " ── "), (far, "")):
            canvas.text(row, column, end.namespace, Look.SELECTED)
            words = f" {end.interface}{mark}"
            canvas.text(row, column + len(end.namespace), words, Look.PLAIN)
            canvas.text(row + 1, column, ", ".join(end.addresses), Look.DIM)
            column += max(len(end.namespace) + len(words), len(", ".join(end.addresses)) + 2)
        row += 2
    for name in scenario.namespaces:
        if name not in linked:
            canvas.text(row, 0, name, Look.SELECTED)
            row += 1
    return canvas.picture()
