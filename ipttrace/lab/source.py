"""The text that a lab was read from: the line of each field, and where relative names start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipttrace.lab.parts import FieldPath

BLOCKS = ("|", ">")
"""Styles of a scalar whose text begins on the line after its field (YAML 1.1 section 9)."""


class Source:
    """A lab file and its YAML nodes; without arguments it stands for no file at all."""

    __slots__ = ("_root", "file")

    def __init__(self, file: str = "", root: Any = None) -> None:
        self.file = file
        self._root = root

    @property
    def folder(self) -> Path:
        """What the names of other files in the lab are relative to."""
        return Path(self.file).parent if self.file else Path()

    def line(self, path: FieldPath, row: int | None = None) -> int | None:
        """Return the line of a field, or of the nearest part around it; None without a file.

        `row` counts from 1 in a text of several lines that begins below its field (`field: |`).
        """
        node, mark = self._root, self._root
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            mark, node = found
        if mark is None:
            return None
        if row is not None and getattr(node, "style", None) in BLOCKS:
            return int(node.start_mark.line) + 1 + row
        return int(mark.start_mark.line) + 1

    def place(self, path: FieldPath, row: int | None = None) -> str:
        """Return `FILE line N`, or an empty text without a file."""
        line = self.line(path, row)
        return "" if line is None else f"{self.file} line {line}"


def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
    """Return the node that marks a child, which is its key in a map, and the child itself."""
    if isinstance(getattr(node, "value", None), list):
        if isinstance(step, int):
            is_list = node.id == "sequence" and step < len(node.value)
            return (node.value[step], node.value[step]) if is_list else None
        if node.id == "mapping":
            return next((pair for pair in node.value if pair[0].value == step), None)
    return None


def path_text(path: FieldPath) -> str:
    """Return a path as it is read: `namespaces.server.services[0].port`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text
