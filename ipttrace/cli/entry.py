"""Where the program starts: Ctrl-C ends it in silence until there is something to take back."""

from __future__ import annotations

import signal


def main() -> int:
    """Run one command; return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ipttrace.cli.main import main as run

    return run()
