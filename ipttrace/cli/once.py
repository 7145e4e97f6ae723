"""An option that can be given once: argparse itself would take the last one, and say nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Once(argparse.Action):
    """Stores the value; a second one is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store it, or say that there is one already."""
        first = getattr(namespace, self.dest)
        if first is not None:
            said = "is named already, and only one at a time can be looked at"
            parser.error(f"argument {option_string}: {first!r} {said}")
        setattr(namespace, self.dest, values)
