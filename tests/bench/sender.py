"""Sends numbered UDP packets at a steady rate, pinned to the first CPU.

Runs as a program of its own, so that its CPU time is nobody else's: ADDRESS PORT RATE SECONDS.
Prints how many went out, and how many a second that were.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time


def send(address: str, port: int, rate: int, seconds: float) -> tuple[int, float]:
    """Send `rate` packets a second to `address`; return how many went out, and their true rate."""
    total = int(rate * seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((address, port))
        begin = time.monotonic()
        for number in range(total):
            ahead = begin + number / rate - time.monotonic()
            if ahead > 0:
                select.select([], [], [], ahead)
            opened.send(number.to_bytes(8, "big"))
    return total, total / (time.monotonic() - begin)


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    address, port, rate, seconds = sys.argv[1:]
    print(*send(address, int(port), int(rate), float(seconds)))
