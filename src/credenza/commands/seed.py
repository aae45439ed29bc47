"""`credenza seed`: a small sample set for development; running it again changes nothing."""

import asyncio
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Final

from cyclopts import Parameter

from credenza import errors, samples
from credenza.commands.target import Unreachable, reached
from credenza.embedded import EmbeddedError
from credenza.settings import Settings
from credenza.transfer import OnConflict, Plan

COLLECTIONS: Final = ("mountains",)


def seed(
    *, url: Annotated[str | None, Parameter(help="The service's address; default: found.")] = None
) -> None:
    """Load the sample documents; those that exist stay as they are."""
    try:
        asyncio.run(_seed(url))
    except (EmbeddedError, Unreachable, errors.Problem) as error:
        sys.exit(f"credenza: {error}")


async def _seed(url: str | None) -> None:
    async with reached(Settings.load(), url) as target:
        for name in COLLECTIONS:
            plan = Plan(name, whole=True, on_conflict=OnConflict.SKIP)
            report = await target.import_lines(plan, _lines(name))
            print(f"{name}: {report.written} of {report.taken} documents written")


def _lines(name: str) -> Iterator[list[bytes]]:
    yield files(samples).joinpath(f"{name}.ndjson").read_bytes().splitlines()
