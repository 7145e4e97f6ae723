"""Our queue, decoder and correlator as a program of their own, so that their CPU time is theirs.

Runs in the namespace that it was started in until SIGTERM; then prints what it counted as JSON.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import select
import signal
import subprocess

from ipttrace.cli.main import GC_THRESHOLD
from ipttrace.correlate import Correlator
from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import TraceEvent
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.ruleset import Ruleset
from ipttrace.system.namespaces import HERE
from ipttrace.system.netlink_queue import NetlinkQueue

NAP = 20
"""Milliseconds in which reports gather before the next look: waking up costs more than reading."""


def read_rules() -> Ruleset:
    """Return the IPv4 rules of iptables-nft here."""
    saved = subprocess.run(
        ["iptables-nft-save", "-c"], capture_output=True, text=True, check=True
    ).stdout
    return decode_iptables_save(saved, Backend.NFT, TableFamily.IP)


def pump(queue: NetlinkQueue, correlator: Correlator, stop: int) -> dict[str, int]:
    """Follow packets until `stop` can be read; return what was counted."""
    hops = overruns = 0
    ready = select.poll()
    ready.register(queue.fileno(), select.POLLIN)
    ready.register(stop, select.POLLIN)
    ending = select.poll()
    ending.register(stop, select.POLLIN)
    while all(descriptor != stop for descriptor, _ in ready.poll()):
        datagrams, lost = queue.drain()
        overruns += lost
        for datagram in datagrams:
            for event in decode_datagram(datagram.data, datagram.time):
                correlator.feed(event)
                hops += isinstance(event, TraceEvent) and not event.header_only
        ending.poll(NAP)
    return {
        "hops": hops,
        "lost": overruns + correlator.tally.lost,
        "paths": len(correlator.paths()),
    }


def signal_descriptor() -> int:
    """Return a descriptor that can be read once SIGTERM came: an idle reader spends no CPU."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return reading


def main() -> None:
    """Read until SIGTERM."""
    gc.set_threshold(GC_THRESHOLD)
    stop = signal_descriptor()
    correlator = Correlator(read_rules(), ids=itertools.count(1))
    queue = NetlinkQueue(HERE)
    print(json.dumps(pump(queue, correlator, stop)))


if __name__ == "__main__":
    main()
