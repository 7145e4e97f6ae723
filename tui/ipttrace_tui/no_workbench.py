"""A workbench without a machine: for a screen that only shows what its feed brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ipttrace.errors import NotSupportedError


class NoWorkbench:
    """Every question is an error, nothing is up."""

    def _refuse(self, *_: object) -> NoReturn:
        raise NotSupportedError("this screen only shows a trace: nothing can be asked or sent")

    probe = lab = read_rules = findings = places = labs = _refuse

    def lab_up(self) -> None:
        """Return that no lab is up."""

    def take_down(self) -> Sequence[str]:
        """Return no warnings."""
        return ()

    def close(self) -> None:
        """Leave nothing."""
