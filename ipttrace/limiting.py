"""Whether the kernel left packets out because of a limit.

While a watch runs, and where nothing counts them, nobody tells.  Each trigger is a token bucket
(xt_limit, nft_limit).  What it let pass is known, so the bucket can be kept here as well: when it
runs empty, the next packet would not have been traced.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.path import PacketPath
from ipttrace.request import Trigger, burst

BLUR = 0.02
"""Seconds by which a time of reading is late."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    time: float


class LimitGauge:
    """Keeps the buckets of a watch."""

    def __init__(self, per_second: int | None) -> None:
        """None: there is no limit."""
        self._rate = per_second or 0
        self._burst = float(burst(self._rate))
        self._buckets: dict[object, _Bucket] = {}
        self.reached = False
        """Whether more packets may have come by than were traced."""

    def note(self, path: PacketPath, trigger: Trigger) -> None:
        """Take a packet that was traced out of its trigger's bucket.

        A raw trigger has one for each family and hook, our own tables have one for all.
        """
        if not self._rate or self.reached:
            return
        whole = trigger is Trigger.OWNER
        key = path.netns, *(() if whole else (path.packet.family, path.in_interface is None))
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, path.time))
        passed = max(0.0, path.time - bucket.time)
        bucket.tokens = min(self._burst, bucket.tokens + passed * self._rate) - 1
        bucket.time = max(bucket.time, path.time)
        self.reached = bucket.tokens < 1 + self._rate * BLUR

    def warnings(self, left_out: int | None) -> tuple[str, ...]:
        """Return what is to be said of it; `left_out` is how many were not traced, if known."""
        if not (self.reached if left_out is None else self._rate and left_out):
            return ()
        others = "others may have come" if left_out is None else f"{left_out:,} others came"
        told = f"the limit of {self._rate} packets/s was reached: {others} by that were not traced"
        return (f"{told} (--limit none traces all)",)
