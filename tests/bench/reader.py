"""Our queue, decoder and correlator as a program of their own, so that their CPU time is theirs.

Runs in the namespace that it was started in until SIGTERM; then prints what it counted as JSON.
"""

from __future__ import annotations

import itertools
import json
import select
import signal
import subprocess
import threading

from ipttrace.correlate import Correlator
from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import TraceEvent
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.ruleset import Ruleset
from ipttrace.system.namespaces import HERE
from ipttrace.system.netlink_queue import NetlinkQueue

NAP = 0.02
"""Seconds in which reports gather before the next look: waking up costs more than reading."""


def read_rules() -> Ruleset:
    """Return the IPv4 rules of iptables-nft here."""
    saved = subprocess.run(
        ["iptables-nft-save", "-c"], capture_output=True, text=True, check=True
    ).stdout
    return decode_iptables_save(saved, Backend.NFT, TableFamily.IP)


def pump(queue: NetlinkQueue, correlator: Correlator, stop: threading.Event) -> dict[str, int]:
    """Follow packets until `stop`; return what was counted."""
    hops = overruns = 0
    ready = select.poll()
    ready.register(queue.fileno(), select.POLLIN)
    while not stop.is_set():
        if not ready.poll(100):
            continue
        datagrams, lost = queue.drain()
        overruns += lost
        for datagram in datagrams:
            for event in decode_datagram(datagram.data, datagram.time):
                correlator.feed(event)
                hops += isinstance(event, TraceEvent) and not event.header_only
        stop.wait(NAP)
    return {
        "hops": hops,
        "lost": overruns + correlator.tally.lost,
        "paths": len(correlator.paths()),
    }


def main() -> None:
    """Read until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    correlator = Correlator(read_rules(), ids=itertools.count(1))
    queue = NetlinkQueue(HERE)
    print(json.dumps(pump(queue, correlator, stop)))


if __name__ == "__main__":
    main()
