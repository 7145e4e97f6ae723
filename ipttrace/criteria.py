"""What an iptables rule asks of a packet, option by option, from the text of iptables-save."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Criterion:
    """One option of a rule, as iptables-save writes it: `! --dport 80`."""

    option: str
    value: str = ""
    negated: bool = False
    text: str | None = None
    """How the rule writes it, where that is not in iptables' words."""
    module: str = field(default="", compare=False)
    """The module named last before it: `--mark` is of mark or of connmark."""

    def __str__(self) -> str:
        if self.text is not None:
            return self.text
        words = (["!"] if self.negated else []) + [self.option]
        return " ".join([*words, self.value] if self.value else words)


LONG_NAMES = {
    "--protocol": "-p",
    "--source": "-s",
    "--destination": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
}

FLAGS = re.compile(r"--?[A-Za-z]")


def criteria(rule: str) -> tuple[Criterion, ...]:
    """Return what `-A CHAIN ...` asks of a packet, in the order written; -m is kept.

    Raises ValueError if the text is not a rule as iptables-save writes it.
    """
    words = shlex.split(rule)
    if words[:1] != ["-A"]:
        raise ValueError("not an iptables rule")
    return tuple(_criteria(iter(words[2:])))


def _criteria(words: Iterator[str]) -> Iterator[Criterion]:
    option, values, negated, negate_next = "", list[str](), False, False
    module = ""
    for word in words:
        if option == "--comment" and not values:
            values.append(word)
        elif word == "!":
            negate_next = True
        elif FLAGS.match(word):
            if option:
                yield Criterion(option, " ".join(values), negated, module=module)
            if option == "-m":
                module = " ".join(values)
            if word in ("-j", "-g", "--jump", "--goto"):
                return
            option, values = LONG_NAMES.get(word, word), []
            negated, negate_next = negate_next, False
        else:
            values.append(word)
    if option:
        yield Criterion(option, " ".join(values), negated, module=module)
