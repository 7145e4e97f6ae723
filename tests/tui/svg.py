"""Pictures of the screen that are the same wherever they are made."""

from __future__ import annotations

import re


def normal_svg(svg: str) -> str:
    """Return the picture without what differs from run to run, and without fetched fonts."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono").replace(
        "<text ", '<text xml:space="preserve" '
    )
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"
