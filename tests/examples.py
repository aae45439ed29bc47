"""Examples of the documentation: found in Markdown, run as a reader runs them, and compared.

A fenced block is `sh` (a script that must succeed), `console` (commands after `$ ` and what they
show), `python` or `json`; any other, and one that cannot run, stands after a comment that says why:
`<!-- not run: the reason -->`. In what is shown, a line `...` and a `…` within a line leave text
out; ids, versions and times are other ones at each run, but where a page shows one of them twice,
or uses it in a command, it has to be the same one.
"""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service import CREDENZA, Running, environment

RUN = frozenset({"sh", "console", "python"})
SECONDS = 90
"""How long one command may take."""

BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SERVE = re.compile(r"(?P<settings>(?:[A-Z_]+=\S+ +)*)make run")
KINDS = {
    "id": r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
    "version": r"\b1[0-9]{15}\b",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "date": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
    "tag": r'(?<=W/")[A-Za-z0-9_-]{22}(?=")',
    "cursor": r"(?<=cursor=)[A-Za-z0-9_.-]+",
}
"""What is another one at each run, and its form."""

VOLATILE = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in KINDS.items()))
UNIQUE = frozenset({"id", "version"})
"""Kinds of which two that differ on the page differ at each run."""

LEFT_OUT = "(?:.*\n)*?"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty where it is."""


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("indent")) + 1
        body = textwrap.dedent(found["text"])
        yield Block(line, found["language"], body, found["reason"] or "")


def commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with what it shows."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        command, shown = found[-1] if found else ("", "")
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif not shown and command.endswith("\\"):
            found[-1] = (f"{command}\n{line}", "")
        else:
            found[-1] = (command, f"{shown}{line}\n")
    return found


@dataclass
class Seen:
    """The ids, versions and times of a page, and what they are in this run."""

    known: dict[str, str] = field(default_factory=dict)

    def compare(self, shown: str, found: str) -> None:
        """Fail unless what a page shows is what was found, but for what changes at each run."""
        tokens = list(VOLATILE.finditer(shown))
        pattern = "".join(map(_line_pattern, shown.splitlines()))
        match = re.fullmatch(pattern, found)
        assert match, f"the page shows\n{shown}\nand there is\n{found}"
        for token, value in zip(tokens, match.groups(), strict=True):
            self._learn(str(token.lastgroup), token[0], value)

    def _learn(self, kind: str, token: str, value: str) -> None:
        if kind == "date":  # in whole seconds: two that are equal here may differ there
            return
        assert self.known.setdefault(token, value) == value, f"{token} is {value} this time"
        if kind in UNIQUE:
            same = [shown for shown, known in self.known.items() if known == value]
            assert same == [token], f"{same} are the same {kind} this time"

    def replaced(self, text: str) -> str:
        """Return a command with the values of this run."""
        return _replaced(text, self.known)


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return LEFT_OUT
    parts, at = [], 0
    for token in VOLATILE.finditer(line):
        parts += [_fixed(line[at : token.start()]), f"({KINDS[str(token.lastgroup)]})"]
        at = token.end()
    return "".join([*parts, _fixed(line[at:]), "\n"])


def _fixed(text: str) -> str:
    return ".*".join(map(re.escape, text.split("…")))


def _replaced(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


class Reader:
    """Someone who follows a page from top to bottom in a folder of their own.

    `service` is what runs at the beginning; `start` starts another one, with other settings, where
    the page says `make run` with some. `places` are the addresses of the page and what stands for
    them here.
    """

    def __init__(
        self,
        folder: Path,
        service: Running,
        start: Callable[..., Running],
        places: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._service = service
        self._start = start
        self._places = dict(places)
        self._seen = Seen()
        # A terminal is no pipe: there, curl does not tell of its progress.
        (folder / ".curlrc").write_text("silent\nshow-error\n")

    def follow(self, block: Block) -> None:
        """Do what a block says and look at what it shows."""
        if block.language == "console":
            for command, shown in commands(block.text):
                self._seen.compare(shown, self.run(command))
        elif block.language == "python":
            self._run([sys.executable, "-c", self._here(block.text)])
        else:
            self.run(block.text)

    def run(self, script: str) -> str:
        """Run a script of the shell and return what it writes; `make run` starts a service."""
        script = self._here(script)
        serve = SERVE.fullmatch(script.replace("\\\n", " ").strip())
        if serve is not None:
            return self._serve(serve["settings"].split())
        return self._run(["bash", "-euo", "pipefail", "-c", script])

    def _serve(self, settings: list[str]) -> str:
        if settings:
            pairs = (setting.split("=", 1) for setting in settings)
            self._service = self._start(**{name.lower(): value for name, value in pairs})
        return self._as_written(self._service.output.read_text().strip())

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        output = done.stdout.decode()
        assert done.returncode == 0, f"{command[-1]}\nends with {done.returncode}:\n{output}"
        return self._as_written(output)

    def _environment(self) -> dict[str, str]:
        home = self._service.settings.get("credenza_home", self._folder / "nothing")
        path = os.pathsep.join([str(Path(CREDENZA).parent), os.environ["PATH"]])
        terminal = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
        return (
            environment(credenza_home=home) | terminal | {"PATH": path, "HOME": str(self._folder)}
        )

    def _here(self, text: str) -> str:
        """Return a page's text with the addresses and values of this run."""
        places = {"http://127.0.0.1:8000": self._service.url, "$PWD": str(self._folder)}
        return self._seen.replaced(_replaced(text, self._places | places))

    def _as_written(self, text: str) -> str:
        """Return output with the addresses that a page shows."""
        home = str(self._service.settings.get("credenza_home"))
        here = {self._service.url: "http://127.0.0.1:8000", home: "/home/you/.local/share/credenza"}
        return "".join(f"{line.rstrip()}\n" for line in _replaced(text, here).splitlines())
