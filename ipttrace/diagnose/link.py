"""The causes that lie on the way to the wire, in the packet itself, or with the other host."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.diagnose.case import Case
from ipttrace.path import Diagnosis

CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = ()
