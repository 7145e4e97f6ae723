"""The causes that lie in routing: routes, forwarding, source validation, TTL and MTU."""

from __future__ import annotations

from collections.abc import Callable

from ipttrace.diagnose.case import Case
from ipttrace.path import Diagnosis

CAUSES: tuple[Callable[[Case], Diagnosis | None], ...] = ()
