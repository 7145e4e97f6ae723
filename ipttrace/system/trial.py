"""A namespace without a name, in which rules are tried before anything is built from them.

It lives as long as a thread of ours: whatever happens to us, the kernel removes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from ipttrace.errors import NotPermittedError
from ipttrace.lab.nft_tables import Attempt as NftAttempt
from ipttrace.lab.restoring import Attempt
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.system import commands
from ipttrace.system.namespaces import Namespace, leave_for_new_network

LOCK_WAIT = "20"
"""Seconds to wait for /run/xtables.lock."""
TIMEOUT = 60.0
"""Seconds that one trial may take: nf_tables takes 50,000 rules in a few."""


@contextmanager
def trial_namespace() -> Iterator[Namespace]:
    """Have a new namespace for a while; raises NotPermittedError."""
    done, born = threading.Event(), Future[Path]()

    def live() -> None:
        try:
            leave_for_new_network()
        except OSError as error:
            born.set_exception(error)
            return
        born.set_result(Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"))
        done.wait()

    thread = threading.Thread(target=live, name="trial", daemon=True)
    thread.start()
    try:
        yield Namespace("trial", born.result())
    except OSError as error:
        raise NotPermittedError(
            f"cannot make a namespace to try the rules in: {error.strerror}", "Run as root."
        ) from error
    finally:
        done.set()
        thread.join()


def restorer(namespace: Namespace, backend: Backend, family: TableFamily) -> Attempt:
    """Return what gives a text to iptables-restore inside `namespace`."""
    program = f"{'iptables' if family is TableFamily.IP else 'ip6tables'}-{backend}-restore"

    def attempt(text: str, test: bool) -> str | None:
        running = commands.start(
            [program, "-c", "-w", LOCK_WAIT, *(["--test"] if test else [])],
            what=f"cannot try the rules with {program}",
            namespace=namespace,
            stdin=text,
        )
        finished = running.finish(TIMEOUT)
        return None if finished.code == 0 else finished.errors or f"exit {finished.code}"

    return attempt


def nft_loader(namespace: Namespace) -> NftAttempt:
    """Return what gives a text to `nft -f -` inside `namespace`."""

    def attempt(text: str) -> str | None:
        running = commands.start(
            ["nft", "-f", "-"], what="cannot try the nft rules", namespace=namespace, stdin=text
        )
        finished = running.finish(TIMEOUT)
        return None if finished.code == 0 else finished.errors or f"exit {finished.code}"

    return attempt
