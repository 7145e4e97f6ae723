"""`probe --write` and `watch --write`: each kind of file, of packets of the real kernel."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from tests.root.kernel import Iptables, Pair
from tests.root.mixed_traffic import flood
from tests.root.trial import SCHEMA
from tests.waiting import wait_until

IPTTRACE = str(Path(sys.executable).with_name("ipttrace"))
HOSTILE = "<script>alert(1)</script> \x1b[31m [bold]"
TELLS = "dropped at filter/INPUT 1"


def drop(pair: Pair, backend: Backend) -> None:
    words = ("-p", "tcp", "--dport", "8443", "-m", "comment", "--comment", HOSTILE, "-j", "DROP")
    Iptables(backend)(pair.server.netns, PacketFamily.IPV4, "-A", "INPUT", *words)


def command(pair: Pair, file: Path, *words: str) -> list[str]:
    where = ("--netns", pair.server.netns, "--in", pair.server.interface)
    source = ("--src", f"{pair.client.ipv4}:40000")
    target = ("tcp", f"{pair.server.ipv4}:8443", "--write", str(file), *words)
    return [IPTTRACE, "probe", *where, *source, *target]


def probe(pair: Pair, file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(pair, file, *words), capture_output=True, text=True, check=False)


def is_jsonl(content: bytes, _: Pair) -> None:
    records = [json.loads(line) for line in content.splitlines()]
    for record in records:
        SCHEMA.validate(record)
    assert (records[0]["outcome"], records[-1]["clean"]) == ("dropped", True)


def is_text(content: bytes, _: Pair) -> None:
    assert TELLS in content.decode()
    assert b"\x1b" not in content


def is_picture(content: bytes, _: Pair) -> None:
    texts = [each.text or "" for each in ET.fromstring(content).iter()]
    assert any("filter 1 ✗" in text for text in texts)
    assert any(TELLS in text for text in texts)


def is_report(content: bytes, _: Pair) -> None:
    page = content.decode()
    assert TELLS in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "ipttrace probe --netns" in page


def is_capture(content: bytes, pair: Pair) -> None:
    """Tcpdump reads it, and the kernel's own bytes are in it: the checksum is right."""
    words = ("tcpdump", "-nnvr", "-")
    done = subprocess.run(words, input=content, capture_output=True, check=True)
    out = done.stdout.decode()
    assert f"{pair.client.ipv4}.40000 > {pair.server.ipv4}.8443: Flags [S]" in out
    assert "bad cksum" not in out
    assert TELLS.encode() in content
    assert f"{pair.server.netns}/{pair.server.interface}".encode() in content


KINDS: dict[str, Callable[[bytes, Pair], None]] = {
    ".jsonl": is_jsonl,
    ".txt": is_text,
    ".svg": is_picture,
    ".html": is_report,
    ".pcapng": is_capture,
}


@pytest.mark.parametrize("suffix", KINDS)
def test_a_probe_is_written(pair: Pair, backend: Backend, tmp_path: Path, suffix: str) -> None:
    drop(pair, backend)
    file = tmp_path / f"probe{suffix}"
    done = probe(pair, file)
    assert done.returncode == 0, done.stderr
    assert TELLS in done.stdout
    assert f"ipttrace: wrote {file}" in done.stderr
    KINDS[suffix](file.read_bytes(), pair)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_no_file_is_replaced_in_silence(pair: Pair, tmp_path: Path) -> None:
    drop(pair, Backend.NFT)
    file = tmp_path / "probe.txt"
    file.write_text("precious")
    done = probe(pair, file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "there is such a file already" in done.stderr
    assert file.read_text() == "precious"
    assert probe(pair, file, "--force").returncode == 0
    assert TELLS in file.read_text()


def test_a_full_disk_costs_the_file_and_not_the_trace(pair: Pair, tmp_path: Path) -> None:
    drop(pair, Backend.NFT)
    words = [IPTTRACE, "probe", "--netns", pair.server.netns, "--in", pair.server.interface]
    words += ["tcp", f"{pair.server.ipv4}:8443", "--write", f"{tmp_path}/full/probe.html"]
    (tmp_path / "full").mkdir()
    mount = f"mount -t tmpfs -o size=4k none {tmp_path}/full && {shlex.join(words)}"
    mount += f"; status=$?; ls -A {tmp_path}/full; exit $status"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert TELLS in done.stdout
    assert "html" not in done.stdout
    assert re.search(r"cannot write .*/probe.html: No space left on device", done.stderr)


def test_a_watch_is_written_as_a_report(pair: Pair, backend: Backend, tmp_path: Path) -> None:
    Iptables(backend)(pair.server.netns, PacketFamily.IPV4, "-A", "INPUT", "-j", "ACCEPT")
    file = tmp_path / "watch.html"
    words = ("--count", "2", "--for", "1h", "--write", str(file), "udp dst port 8445")
    with subprocess.Popen(
        [IPTTRACE, "watch", "--netns", pair.server.netns, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: traced(pair), 20, what="the trigger stands")
            while process.poll() is None:
                flood(pair.client, pair.server, 5)
            _, err = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert file.read_text().count("<section") == 2


def traced(pair: Pair) -> bool:
    saved = [Iptables(each).save(pair.server.netns, PacketFamily.IPV4) for each in Backend]
    return any("-j TRACE" in text for text in saved)


# ------------------------------------------------------------------ nobody reads what is printed


def in_shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def test_a_reader_that_goes_early_costs_neither_file_nor_status(pair: Pair, tmp_path: Path) -> None:
    drop(pair, Backend.NFT)
    file = tmp_path / "probe.html"
    line = shlex.join(command(pair, file, "--expect", "delivered"))
    done = in_shell(f"{line} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert TELLS in file.read_text()


def test_a_full_disk_under_stdout_is_said_in_a_line(pair: Pair, tmp_path: Path) -> None:
    done = in_shell(f"{shlex.join(command(pair, tmp_path / 'probe.txt'))} >/dev/full")
    assert (done.returncode, done.stderr) == (
        3,
        "ipttrace: cannot print the results: No space left on device\n",
    )
    assert not traced(pair)


def test_streams_may_be_closed(pair: Pair, tmp_path: Path) -> None:
    drop(pair, Backend.NFT)
    file = tmp_path / "probe.txt"
    done = in_shell(f"{shlex.join(command(pair, file))} <&- >&- 2>&-")
    assert done.returncode == 0
    assert TELLS in file.read_text()
