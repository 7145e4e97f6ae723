"""The command line `ipttrace`: its subcommands, and how their errors end."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ipttrace import __version__
from ipttrace.cli import check, clean, doctor, lab, output, probe, rules, tui, watch
from ipttrace.decode.text import clean_text
from ipttrace.errors import IptTraceError, UsageError

SUBCOMMANDS = (probe, watch, rules, lab, check, tui, doctor, clean)
INTERRUPTED = 130
GC_THRESHOLD = 50_000
"""Objects; our values hold no cycles, and the default of 700 costs a tenth of the reading."""

EPILOG = """\
exit status: 0 done, 1 an expectation failed, 2 usage, 3 not permitted or not supported here,
4 done but events were lost, 130 interrupted"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="ipttrace",
        description="Show the way one real packet takes through the kernel's netfilter hooks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ipttrace {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    output.open_closed_streams()
    gc.set_threshold(GC_THRESHOLD)
    words = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    unknown = _unknown(words[0])
    if unknown is not None:
        output.error(unknown)
        return unknown.exit_code
    args = parser.parse_args(words)
    args.words = words
    try:
        _listen_to_signals()
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except IptTraceError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        changes = getattr(args, "changes_host", False)
        output.note("interrupted; everything was taken back" if changes else "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        output.hush()
        return 0


def _unknown(command: str) -> UsageError | None:
    """Return what to say if there is no such command: also which one may have been meant."""
    from difflib import get_close_matches

    names = [module.__name__.rpartition(".")[2] for module in SUBCOMMANDS]
    if command in names or command.startswith("-"):
        return None
    alike = get_close_matches(command, names, 1)
    meant = f"Did you mean 'ipttrace {alike[0]}'? " if alike else ""
    return UsageError(
        f"there is no command '{clean_text(command)}'", f"{meant}There are {', '.join(names)}."
    )


def _listen_to_signals() -> None:
    """Let signals end the command by an exception; SIGINT stays ignored where it was."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
