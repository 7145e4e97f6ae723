"""The tracefs instance of a session: there while it traces, gone however it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest

from ipttrace.system import own_traces, tracefs
from ipttrace.system.trace_instance import TraceInstance
from tests.root.kernel import Namespaces, Pair, in_namespace
from tests.waiting import wait_until

pytestmark = pytest.mark.root


@contextmanager
def silent_probe(pair: Pair) -> Iterator[subprocess.Popen[bytes]]:
    """A probe that waits for an answer that never comes; its own session's instance is new."""
    words = ["--netns", pair.server.netns, "--from", pair.client.netns, "--wait", "60"]
    command = [sys.executable, "-m", "ipttrace.cli.main", "probe", *words, "udp"]
    process = subprocess.Popen(
        [*command, f"{pair.server.ipv4}:9"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def made_since(before: list[str]) -> list[str]:
    return sorted(set(own_traces.sessions()) - set(before))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_instance_outlives_its_session(pair: Pair, number: signal.Signals) -> None:
    pair.server.run("iptables-nft", "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    with pair.server.socket(2, 2) as service:
        service.bind((pair.server.ipv4, 9))
        before = own_traces.sessions()
        with silent_probe(pair) as process:
            wait_until(lambda: readers(process.pid), seconds=20, what="an instance that is read")
            own = [name for name in made_since(before) if name in readers(process.pid)]
            assert own
            process.send_signal(number)
            process.wait(20)
            wait_until(lambda: not set(own) & set(own_traces.sessions()), seconds=20, what=str(own))


REFUSED = 9


def test_what_strangers_receive_is_seen_too(namespaces: Namespaces) -> None:
    """Unseen, its events would be taken for those of the packet that was received before."""
    stranger = in_namespace(namespaces.add("stranger"))

    def be_refused() -> int:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", REFUSED), timeout=5)
        return threading.get_native_id()

    instance = TraceInstance(uuid4().hex[:8])
    try:
        instance.start(["an-interface-of-ours"])
        thread = stranger.run(be_refused)
        events = [event for event in instance.drain()[0] if event.pid == thread]
    finally:
        instance.close()
    deaths = [n for n, event in enumerate(events) if event.text("reason") == "NO_SOCKET"]
    assert deaths
    for number in deaths:
        received = [e for e in events[:number] if e.name == "netif_receive_skb"]
        assert events[number].number("skbaddr") in {each.number("skbaddr") for each in received}


FLOOD = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        sender.sendto(b"", ("127.0.0.1", {REFUSED}))
    except ConnectionRefusedError:
        pass
"""


def test_reading_ends_though_events_go_on_coming(namespaces: Namespaces) -> None:
    """They come faster than they are read: some are lost, and then reading is in vain."""
    netns = namespaces.add("flooded")
    instance = TraceInstance(uuid4().hex[:8])
    with tracefs.opened() as root:
        size = f"{tracefs.INSTANCES}/{instance.name}/buffer_size_kb"
        tracefs.write(root.descriptor, size, "64")
    command = ["ip", "netns", "exec", netns, sys.executable, "-c", FLOOD]
    with subprocess.Popen(command) as flood:
        try:
            instance.start([])
            wait_until(lambda: instance.drain()[1], seconds=30, what="events lost")
            instance.drain()
            assert instance.drain() == ([], 0)
        finally:
            flood.kill()
            instance.close()


def readers(pid: int) -> str:
    """Return the files that a process has open in tracefs, as text."""
    found = subprocess.run(
        ["ls", "-l", f"/proc/{pid}/fd"], capture_output=True, text=True, check=False
    )
    lines = [line for line in found.stdout.splitlines() if "trace_pipe_raw" in line]
    return "\n".join(lines)
