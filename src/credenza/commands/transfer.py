"""`credenza import` and `credenza export`: files in and out, through the service that runs.

Where a service is reached decides: `--url`, else the one that holds the embedded home; without one
the home's database is used directly. A database of DATABASE_URL is only reached through a service,
because its cache must hear of each write.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from credenza import errors
from credenza.commands import sources
from credenza.commands.target import Unreachable, reached
from credenza.embedded import EmbeddedError
from credenza.settings import Settings
from credenza.transfer import OnConflict, Plan, max_line
from credenza.values import valid_collection

SHOWN_ERRORS: Final = 10

File = Annotated[Path, Parameter(allow_leading_hyphen=True, help="A file, or `-`.")]
Collection = Annotated[str, Parameter(name=["--collection", "-c"], help="Collection.")]
Whole = Annotated[
    bool, Parameter(negative=(), help="Lines are whole documents, whose ids are kept.")
]
Url = Annotated[str | None, Parameter(help="The service's address; default: found by itself.")]


def import_(
    file: File,
    *,
    collection: Collection = "default",
    form: Annotated[
        sources.Form | None,
        Parameter(name="--format", help="What the file is; default: by its name."),
    ] = None,
    whole: Whole = False,
    on_conflict: Annotated[
        OnConflict, Parameter(help="What becomes of a document whose id exists.")
    ] = OnConflict.ERROR,
    from_line: Annotated[
        int,
        Parameter(
            help="Line to begin with, to resume an import.", validator=validators.Number(gte=1)
        ),
    ] = 1,
    url: Url = None,
) -> None:
    """Import a file of JSON: NDJSON or one array, also gzipped; `-` is standard input.

    Each line, or item of the array, becomes a document. A `.json` that begins with `[` is one
    array. All else is lines, standard input too: `[1, 2]` on a line is one document.

    The import ends at the first bad line and tells how many were taken and where to resume.
    """
    plan = Plan(_known(collection), whole=whole, on_conflict=on_conflict)
    _run(_import(file, form, plan, from_line, url))


def export(
    file: File = sources.STANDARD,
    *,
    collection: Collection = "default",
    whole: Whole = False,
    url: Url = None,
) -> None:
    """Export a collection as NDJSON, in the order of ids; to standard output by default.

    A file named `.gz` is compressed. It gets its name only when it is whole. Of a collection that
    does not exist the export is empty, with a warning.
    """
    _run(_export(file, _known(collection), url, whole=whole))


def _run(work: Any) -> None:
    """Run a command's work; what can be expected to go wrong is one line on standard error."""
    try:
        asyncio.run(work)
    except errors.Problem as problem:
        sys.exit("\n".join(_refusal(problem)))
    except (EmbeddedError, Unreachable, sources.Unreadable, OSError) as error:
        sys.exit(f"credenza: {error}")
    except KeyboardInterrupt:
        sys.exit("credenza: interrupted; chunks that were taken before are stored")


def _known(collection: str) -> str:
    if not valid_collection(collection):
        sys.exit(f"credenza: {collection!r} is not a collection's name")
    return collection


def _refusal(problem: errors.Problem) -> Iterable[str]:
    faults: list[dict[str, Any]] = problem.members.get("errors", [])
    yield f"credenza: {problem.title}" + ("" if faults else f": {problem.detail}")
    for fault in faults[:SHOWN_ERRORS]:
        yield f"  line {fault['line']}: {fault['detail']}"
    if len(faults) > SHOWN_ERRORS:
        yield f"  and {len(faults) - SHOWN_ERRORS} more"
    if "taken" in problem.members:
        yield _resume(problem.members["taken"])


def _resume(taken: int) -> str:
    return f"{taken} lines were taken; resume with --from-line {taken + 1}"


def _bar() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    return Progress(
        *(*columns, DownloadColumn(), TimeElapsedColumn()), console=Console(stderr=True)
    )


async def _import(
    file: Path, form: sources.Form | None, plan: Plan, from_line: int, url: str | None
) -> None:
    settings = Settings.load()
    with _bar() as bar:
        task = bar.add_task(f"into {plan.collection}", total=sources.size(file))
        found = sources.lines(
            file,
            form,
            max_line=max_line(settings),
            progress=lambda at: bar.update(task, completed=at),
        )
        readable = _Readable(found)
        async with reached(settings, url) as target:
            report = await target.import_lines(plan, _blanked(readable, from_line - 1))
        if readable.fault:
            raise sources.Unreadable(f"{readable.fault}\n{_resume(report.taken)}")
        bar.update(task, completed=sources.size(file) or 0)
    print(f"{report.written} documents written from {report.taken} lines", file=sys.stderr)


class _Readable:
    """Lines up to a fault of their file, which is kept: what came before it is imported."""

    def __init__(self, parts: Iterable[list[bytes]]) -> None:
        self._parts = parts
        self.fault: sources.Unreadable | None = None

    def __iter__(self) -> Iterator[list[bytes]]:
        try:
            yield from self._parts
        except sources.Unreadable as fault:
            self.fault = fault


def _blanked(parts: Iterable[list[bytes]], lines: int) -> Iterator[list[bytes]]:
    """Yield the lines with the first ones empty, so that the numbers of the others stay."""
    for part in parts:
        blank = min(lines, len(part))
        lines -= blank
        yield [b""] * blank + part[blank:]


async def _export(file: Path, collection: str, url: str | None, *, whole: bool) -> None:
    size = 0
    async with reached(Settings.load(), url) as target:
        with sources.written(file) as sink, _bar() as bar:
            task = bar.add_task(f"out of {collection}", total=None)
            async for part in target.export(collection, "document" if whole else "data"):
                sink.write(part)
                size += len(part)
                bar.update(task, completed=size)
        if not size and not await target.has(collection):
            print(f"credenza: there is no collection {collection!r}", file=sys.stderr)
