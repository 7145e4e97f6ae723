"""A program that listens to NFLOG group 0, as ulogd2 does: in a process of its own.

Formats: uapi/linux/netfilter/nfnetlink_log.h; messages: uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Self

from tests.root.kernel import in_namespace
from tests.waiting import SLOW, wait_until

NAME = "log listener"

PROGRAM = """
import select, socket, struct, sys
open("/proc/self/comm", "w").write(sys.argv[1])
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
netlink.bind((0, 0))

def configure(family, kind, value):
    body = struct.pack("!BBH", family, 0, 0) + struct.pack("=HH", 4 + len(value), kind) + value
    body += bytes(-len(body) % 4)
    netlink.send(struct.pack("=IHHII", 16 + len(body), 0x0401, 5, 1, 0) + body)
    assert struct.unpack_from("=i", netlink.recv(4096), 16)[0] == 0

if sys.argv[2] == "bind":
    for family in (socket.AF_INET, socket.AF_INET6):
        configure(family, 1, bytes((3, 0, 0, 0)))
configure(0, 1, bytes((1, 0, 0, 0)))
configure(0, 2, struct.pack("!IBx", 64, 2))
configure(0, 5, struct.pack("!I", 1))
print("ready", flush=True)

def prefix(message):
    at = 20
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == 10:
            return message[at + 4 : at + length].rstrip(b"\\0").decode()
        at += (max(length, 4) + 3) & ~3
    return ""

while not select.select([netlink, sys.stdin], [], [])[0].count(sys.stdin):
    data = netlink.recv(1 << 16)
    while data:
        length = struct.unpack_from("=I", data)[0]
        print("heard " + prefix(data[:length]), flush=True)
        data = data[(length + 3) & ~3 :]
"""


class LogListener:
    """Holds group 0 of a namespace until the end of the block."""

    def __init__(self, netns: str, *, bind: bool = True) -> None:
        """With `bind` it makes nfnetlink_log the logger of both families, too."""
        words = [sys.executable, "-c", PROGRAM, NAME, "bind" if bind else "-"]
        self._process = in_namespace(netns).run(
            lambda: subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._text = ""

    def __enter__(self) -> Self:
        wait_until(lambda: "ready\n" in self._read(), what="the listener listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=5 * SLOW)

    @property
    def words(self) -> str:
        """What is said of it."""
        return f"pid {self._process.pid} ({NAME})"

    @property
    def heard(self) -> list[str]:
        """The prefixes of all messages so far."""
        lines = self._read().splitlines()
        return [line.removeprefix("heard ") for line in lines if line.startswith("heard ")]

    def _read(self) -> str:
        while True:
            try:
                data = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return self._text
            if not data:
                return self._text
            self._text += data.decode()
