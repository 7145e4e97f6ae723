"""The causes that lie in the sockets of this host: who listens, where, and how full."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.diagnose.case import Case
from ipttrace.path import Diagnosis

CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = ()
