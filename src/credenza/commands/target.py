"""Where an import or export goes: through a service, or into the home that nobody else holds."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from threading import Event
from typing import Any, Final, Literal, Protocol

import httpx2

from credenza import embedded, errors, query, wire
from credenza.app import Service
from credenza.commands.address import address
from credenza.embedded import Home
from credenza.logs import set_up_logs
from credenza.settings import Settings
from credenza.transfer import Plan
from credenza.upkeep import bring_up_to_date

CONNECT_SECONDS: Final = 5.0
MAX_PORT: Final = 65535

View = Literal["document", "data"]


class Unreachable(Exception):
    """No service answers, or it does not answer as one."""


class Target(Protocol):
    """Takes lines and gives them back."""

    async def import_lines(self, plan: Plan, parts: Iterable[list[bytes]]) -> wire.ImportReport:
        """Store lines; ImportFailed at the first bad chunk."""

    def export(self, collection: str, view: View) -> AsyncIterator[bytes]:
        """Yield the collection's documents as lines."""

    async def has(self, collection: str) -> bool:
        """Return whether there is such a collection."""


@asynccontextmanager
async def reached(settings: Settings, url: str | None) -> AsyncIterator[Target]:
    """Find the service, or the database that this process may write to directly."""
    if url is None and not settings.is_embedded:
        url = address(settings.host, settings.port)
    if url is None:
        url = Home.holder(settings.credenza_home)
    if url is None:
        async with _direct(settings) as direct:
            yield direct
        return
    _refuse_no_url(url)
    headers = {"Authorization": f"Bearer {token}"} if (token := settings.token()) else {}
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout) as client:
        yield _Remote(client)


def _refuse_no_url(url: str) -> None:
    """Raise Unreachable for what the client raises nothing that can be told for."""
    try:
        port = httpx2.URL(url).port
    except httpx2.InvalidURL as error:
        raise Unreachable(f"{url}: {error}") from None
    if port is not None and port > MAX_PORT:
        raise Unreachable(f"{url}: ports end with {MAX_PORT}")


class _Remote:
    """A service that is spoken to by HTTP."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def import_lines(self, plan: Plan, parts: Iterable[list[bytes]]) -> wire.ImportReport:
        """Store lines by one request, whose body is sent as it is read.

        The service may refuse it and close while the body is being sent. Of a blocking socket the
        refusal can still be read then, of one of asyncio not. One of the token comes before that.
        """
        left = Event()
        try:
            _refuse_failure(await self._client.get("/v1"))
            answer = await asyncio.to_thread(self._post, plan, _joined(parts, left))
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            left.set()
        _refuse_failure(answer)
        return wire.ImportReport.model_validate_json(answer.content)

    def _post(self, plan: Plan, body: Iterator[bytes]) -> httpx2.Response:
        known = self._client
        with httpx2.Client(
            base_url=known.base_url, headers=known.headers, timeout=known.timeout
        ) as client:
            return client.post(
                f"/v1/data/{plan.collection}/_import",
                params={
                    "view": "document" if plan.whole else "data",
                    "on_conflict": plan.on_conflict.value,
                },
                content=body,
                headers={"Content-Type": "application/x-ndjson"},
            )

    def _unreachable(self, error: httpx2.HTTPError) -> Unreachable:
        return Unreachable(f"{self._client.base_url}: {str(error) or type(error).__name__}")

    async def export(self, collection: str, view: View) -> AsyncIterator[bytes]:
        """Yield lines as they arrive."""
        path = f"/v1/data/{collection}/_export"
        try:
            async with self._client.stream("GET", path, params={"view": view}) as answer:
                if answer.status_code != httpx2.codes.OK:
                    await answer.aread()
                _refuse_failure(answer)
                async for part in answer.aiter_bytes():
                    yield part
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    async def has(self, collection: str) -> bool:
        """Ask for its settings."""
        try:
            answer = await self._client.get(f"/v1/collections/{collection}")
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return False
        _refuse_failure(answer)
        return True


def _joined(parts: Iterable[list[bytes]], left: Event) -> Iterator[bytes]:
    """Yield bodies' parts until they are wanted no more: then the body must not seem whole."""
    for part in parts:
        if left.is_set():
            raise Unreachable("interrupted")
        yield b"".join(line + b"\n" for line in part)


def _refuse_failure(answer: httpx2.Response) -> None:
    if answer.status_code != httpx2.codes.OK:
        raise _problem(answer)


def _problem(answer: httpx2.Response) -> errors.Problem:
    """Return the problem that a service has answered with."""
    try:
        said: dict[str, Any] = answer.json()
        kind = next(kind for kind in errors.ALL if kind.code == said["code"])
    except (ValueError, KeyError, StopIteration):
        return errors.Unavailable(f"{answer.url} answered {answer.status_code}.")
    members = {name: said[name] for name in ("taken", "written", "line", "errors") if name in said}
    return kind(said.get("detail", ""), **members)


@asynccontextmanager
async def _direct(settings: Settings) -> AsyncIterator["_Direct"]:
    set_up_logs(level="warning", as_json=False)
    async with embedded.running(settings.credenza_home, lambda _: None) as url:
        if not await bring_up_to_date(settings, url):
            raise Unreachable("the database could not be migrated")
        service = Service(settings, url=url)
        async with service.running():
            yield _Direct(service)


class _Direct:
    """The database of a home that this process holds."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def import_lines(self, plan: Plan, parts: Iterable[list[bytes]]) -> wire.ImportReport:
        """Store lines as the service would."""
        return await self._service.imports.run(plan, _one_by_one(parts))

    def export(self, collection: str, view: View) -> AsyncIterator[bytes]:
        """Yield lines as the service would."""
        return self._service.exports.lines(collection, query.parse([("view", view)]))

    async def has(self, collection: str) -> bool:
        """Look it up."""
        return await self._service.collections.find(collection) is not None


async def _one_by_one(parts: Iterable[list[bytes]]) -> AsyncIterator[list[bytes]]:
    for part in parts:
        yield part
