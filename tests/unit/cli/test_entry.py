"""Ctrl-C before a command has begun: nothing is there to take back, and nothing is to be said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys
before = set(sys.modules)
import ipttrace.cli.entry
print(*sorted(each for each in set(sys.modules) - before if each.startswith("ipttrace")))
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "ipttrace.cli.main":
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["ipttrace", "--version"]
ipttrace.cli.entry.main()
"""


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    whole = ["env", *words, sys.executable, "-c", program]
    return subprocess.run(whole, capture_output=True, text=True, check=False)


def test_it_ends_in_silence_while_it_loads() -> None:
    done = run(PROGRAM, "--default-signal=INT")
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
    assert done.stdout == "ipttrace ipttrace.cli ipttrace.cli.entry\n"


def test_it_stays_ignored_where_it_was() -> None:
    done = run(PROGRAM, "--ignore-signal=INT")
    assert done.returncode == 0
    assert done.stdout.endswith("ipttrace 0.1.0\n") or "ipttrace" in done.stdout


def test_the_program_starts_there() -> None:
    script = Path(sys.executable).with_name("ipttrace").read_text()
    assert "ipttrace.cli.entry" in script
    assert os.access(Path(sys.executable).with_name("ipttrace"), os.X_OK)
