"""Measures ipttrace beside its peers, each in turn, in private network namespaces."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TypeVar

from ipttrace.netfilter import Backend
from tests.bench import screen
from tests.bench.evidence import RATE as FOREIGN_RATE
from tests.bench.evidence import (
    SILENT,
    WAIT,
    WITHOUT,
    foreign_drops,
    refused_command,
    share_of_core,
    waiting_command,
)
from tests.bench.figures import OURS, Figure
from tests.bench.load import PORT as STREAM_PORT
from tests.bench.load import add_rules, send
from tests.bench.readers import PROGRAMS, ReaderDiedError, hops_of, reading
from tests.bench.waiting_time import (
    IPTTRACE,
    PORT,
    probe_command,
    seconds_to_answer,
    seconds_to_end,
)
from tests.bench.watching import RATE as WATCHED_RATE
from tests.bench.watching import TCPDUMP, WATCH, Cost, add_watched_rules, cost
from tests.root.kernel import Listeners, Namespaces, Pair, build_pair
from tests.root.mixed_traffic import know_each_other

S = TypeVar("S")

RATE = 1500
"""Packets a second."""

ATTEMPTS = 5
"""How often a program may die before the bench gives up."""


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def interleaved(
    programs: Mapping[str, Callable[[], S | None]], runs: int, what: str
) -> dict[str, list[S]]:
    """Run every program once, then all again, so that no one has a quiet machine to itself.

    A program that could not be measured in any run is left out.
    """
    samples: dict[str, list[S]] = {program: [] for program in programs}
    for run in range(runs):
        for program, measure in programs.items():
            progress(f"{what}, run {run + 1} of {runs}: {program}")
            sample = measure()
            if sample is not None:
                samples[program].append(sample)
    return {program: found for program, found in samples.items() if found}


def cpu_per_hop(runs: int, seconds: float) -> list[Figure]:
    """Measure the CPU time of each reader for one reported hop."""
    with Namespaces("bench") as made, Listeners() as listen:
        pair = build_pair(made)
        add_rules(pair)
        listen(pair.server.netns, pair.server.ipv4, STREAM_PORT, "udp")
        hops = hops_of(pair.server, lambda: send(pair, RATE, 0.5))
        progress(f"{hops:.2f} hops a packet")

        def measure(program: str) -> float:
            with reading(program, pair.server) as reader:
                packets = send(pair, RATE, seconds)
                spent = reader.cpu()
                if drops := reader.drops():
                    progress(f"{program} lost {drops} messages: its figure is too good")
            return spent * 1e6 / (packets * hops)

        def measure_alive(program: str) -> float | None:
            for _ in range(ATTEMPTS):
                try:
                    return measure(program)
                except ReaderDiedError:
                    progress(f"{program} died of a full buffer")
            return None

        turns = {program: lambda name=program: measure_alive(name) for program in PROGRAMS}
        samples = interleaved(turns, runs, "CPU per hop")
    peer = median(samples["nft monitor trace"])
    return [Figure(f"CPU per reported hop at {RATE} packets/s", "us", samples, target=peer)]


def watch_cost(runs: int, seconds: float) -> list[Figure]:
    """Measure what a watch of all packets costs at its default limit, while very many come."""
    with Namespaces("bench") as made, Listeners() as listen:
        pairs = {backend: build_pair(made) for backend in Backend}
        for backend, pair in pairs.items():
            know_each_other(pair)
            add_watched_rules(pair, backend)
            listen(pair.server.netns, pair.server.ipv4, STREAM_PORT, "udp")
        nft, legacy = pairs[Backend.NFT], pairs[Backend.LEGACY]
        turns: dict[str, Callable[[], Cost]] = {
            OURS: lambda: cost(WATCH, nft, seconds),
            "rules of iptables-legacy": lambda: cost(WATCH, legacy, seconds),
            "tcpdump of all packets": lambda: cost(TCPDUMP, nft, seconds),
        }
        samples = interleaved(turns, runs, "watch")
    core = {name: [each.core for each in costs] for name, costs in samples.items()}
    memory = {name: [each.memory for each in costs] for name, costs in samples.items()}
    what = f"a watch of {WATCHED_RATE:,} packets/s at its default limit"
    return [
        Figure(what, "% of a core", core, target=5),
        Figure(what, "MiB at most", memory, target=100),
    ]


def probe_seconds(runs: int) -> list[Figure]:
    """Measure how long a cold probe takes to its answer, with rules and without."""
    with Namespaces("bench") as made, Listeners() as listen:
        ruled, bare = build_pair(made), build_pair(made)
        for pair in (ruled, bare):
            listen(pair.server.netns, pair.server.ipv4, PORT)
        add_rules(ruled)
        turns = {
            OURS: lambda: seconds_to_answer(*probe_command(ruled)),
            "its whole run": lambda: seconds_to_end(*probe_command(ruled)),
            "where no rule is": lambda: seconds_to_answer(*probe_command(bare)),
            "python -c 'import scapy'": lambda: seconds_to_end(
                sys.executable, "-c", "import scapy.layers.inet"
            ),
        }
        samples = interleaved(turns, runs, "probe")
    return [Figure("a cold probe to its answer", "s", samples, target=0.8)]


WITH_NONE = "with --evidence none"


def evidence_cost(runs: int) -> list[Figure]:
    """Measure what the kernel's evidence adds to a probe: time, and work beside foreign drops."""
    with Namespaces("bench") as made, Listeners() as listen:
        pair, noisy = build_pair(made), build_pair(made)
        listen(pair.server.netns, pair.server.ipv4, SILENT, "udp")
        know_each_other(pair)
        add_rules(pair)
        figures = [
            _with_and_without(what, timed, pair, runs)
            for what, timed in (
                ("a refused probe to its answer", seconds_to_answer),
                ("a refused probe to its end", seconds_to_end),
            )
        ]
        return [*figures, _beside_drops(pair, noisy, runs)]


def _with_and_without(what: str, timed: Callable[..., float], pair: Pair, runs: int) -> Figure:
    turns = {
        OURS: lambda: timed(*refused_command(pair)),
        WITH_NONE: lambda: timed(*refused_command(pair, *WITHOUT)),
    }
    samples = interleaved(turns, runs, what)
    return Figure(what, "s", samples, _more(samples[WITH_NONE], 0.3))


def _beside_drops(pair: Pair, noisy: Pair, runs: int) -> Figure:
    with foreign_drops(noisy, seconds=4 * runs * (WAIT + 2)) as sender:
        turns = {
            OURS: lambda: share_of_core(waiting_command(pair), noisy, sender),
            WITH_NONE: lambda: share_of_core(waiting_command(pair, *WITHOUT), noisy, sender),
        }
        samples = interleaved(turns, runs, f"beside {FOREIGN_RATE:,} foreign drops/s")
    what = f"a probe of {WAIT:g} s beside {FOREIGN_RATE:,} foreign drops/s, with their sender"
    return Figure(what, "% of a core", samples, _more(samples[WITH_NONE], 20))


def _more(peer: list[float], allowed: float) -> float:
    return round(median(peer) + allowed, 3)


def screen_figures(runs: int) -> list[Figure]:
    """Measure the screen: from a key to its paint, to the first paint, and its memory."""
    keys: list[float] = []
    memory: list[float] = []
    for run in range(runs):
        progress(f"screen, run {run + 1} of {runs}: {screen.PACKETS:,} packets")
        with screen.busy_screen() as busy:
            busy.until("way of packet 1 ")
            memory.append(busy.memory())
            keys.append(1000 * screen.percentile(screen.key_seconds(busy), 0.95))
    lab = [IPTTRACE, "tui", "--lab", "article-complete"]
    turns = {
        OURS: lambda: screen.first_paint(lab, "packets"),
        "python -c 'import textual.app'": lambda: seconds_to_end(
            sys.executable, "-c", "import textual.app"
        ),
    }
    first = interleaved(turns, runs, "first paint")
    what = f"{screen.PRESSES} keys over {screen.PACKETS:,} packets, {screen.RATE:,}/s coming"
    return [
        Figure(f"{what}: the 95th percentile to the paint", "ms", {OURS: keys}, target=50),
        Figure("the screen's first paint", "s", first, target=0.6),
        Figure(f"the screen with {screen.PACKETS:,} packets", "MiB", {OURS: memory}, target=200),
    ]


def help_seconds(runs: int) -> list[Figure]:
    """Measure how long `ipttrace --help` takes."""
    turns = {
        OURS: lambda: seconds_to_end(IPTTRACE, "--help"),
        "python -c pass": lambda: seconds_to_end(sys.executable, "-c", "pass"),
        "nft --version": lambda: seconds_to_end("nft", "--version"),
    }
    return [Figure("ipttrace --help", "s", interleaved(turns, runs, "help"), target=0.15)]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each program (5)")
    parser.add_argument("--seconds", type=float, default=4, help="length of the stream (4)")
    parser.add_argument(
        "--only",
        choices=["cpu", "watch", "probe", "evidence", "screen", "help"],
        help="measure only this",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args(words)


def main() -> None:
    """Measure, print the tables, write the file."""
    words = parse()
    measures: dict[str, Callable[[], list[Figure]]] = {
        "cpu": lambda: cpu_per_hop(words.runs, words.seconds),
        "watch": lambda: watch_cost(words.runs, words.seconds),
        "probe": lambda: probe_seconds(words.runs),
        "evidence": lambda: evidence_cost(words.runs),
        "screen": lambda: screen_figures(words.runs),
        "help": lambda: help_seconds(words.runs),
    }
    chosen = [words.only] if words.only else list(measures)
    figures = [figure for name in chosen for figure in measures[name]()]
    print(
        f"kernel {platform.release()}, Python {platform.python_version()}, medians of {words.runs}"
    )
    for figure in figures:
        print("\n" + "\n".join(figure.lines()))
    if words.json:
        record = {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "figures": [figure.as_record() for figure in figures],
        }
        words.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
