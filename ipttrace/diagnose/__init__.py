"""Why a packet met its fate: small pure functions over its path and the rules."""

from __future__ import annotations

from ipttrace.diagnose.chains import diagnose

__all__ = ["diagnose"]
