"""The topology of a lab as a picture in the screen's looks."""

from __future__ import annotations

from ipttrace.decode.text import clean_text
from ipttrace.lab.drawing import Drawing, draw
from ipttrace.lab.scenario import Scenario
from ipttrace.render.picture import Canvas, Look, Picture


def topology_picture(scenario: Scenario, width: int) -> Picture:
    """Return boxes and wires where they fit into `width` columns, else a list of the links."""
    drawing = draw(scenario.topology, width)
    return _boxes(drawing) if drawing.width <= width else _links(scenario)


def _boxes(drawing: Drawing) -> Picture:
    canvas = Canvas()
    for row, line in enumerate(drawing.lines()):
        canvas.text(row, 0, clean_text(line), Look.PLAIN)
    for box in drawing.boxes:
        canvas.text(box.y, box.x + 3, box.name, Look.SELECTED)
    return canvas.picture()


def _links(scenario: Scenario) -> Picture:
    """Return two lines a link: the namespaces at its ends, and their addresses."""
    canvas = Canvas()
    linked = {end.namespace for link in scenario.links for end in link}
    row = 0
    for near, far in scenario.links:
        for end, joint in ((near, "┬ "), (far, "└ ")):
            canvas.text(row, 0, joint, Look.PLAIN)
            canvas.text(row, 2, end.namespace, Look.SELECTED)
            words = f" {end.interface}  {', '.join(end.addresses)}"
            canvas.text(row, 2 + len(end.namespace), clean_text(words), Look.PLAIN)
            row += 1
    for name in scenario.namespaces:
        if name not in linked:
            canvas.text(row, 2, name, Look.SELECTED)
            row += 1
    return canvas.picture()
