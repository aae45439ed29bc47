"""`credenza serve`: the database if it is ours, then one process that serves, or several."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator

import structlog
import uvloop

from credenza import __version__, embedded, errors
from credenza.commands.address import address
from credenza.embedded import EmbeddedError
from credenza.logs import set_up_logs
from credenza.serving import free_port, kept, work
from credenza.settings import Settings
from credenza.supervisor import supervise
from credenza.upkeep import bring_up_to_date

log = structlog.get_logger()


def serve() -> None:
    """Serve until SIGTERM or Ctrl-C; without DATABASE_URL on an embedded PostgreSQL."""
    settings = _prepared()
    port = _free(settings.host, "PORT", settings.port)
    if settings.metrics_port is not None:
        _free(settings.host, "METRICS_PORT", settings.metrics_port)
    with kept(settings.host, port), contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        uvloop.run(_serve(settings, port))


def one_of_many() -> None:
    """Serve as one of several processes; the supervisor's, not for people."""
    settings = _prepared()
    url = settings.external_url()
    uvloop.run(_one_of_many(settings, url))


async def _one_of_many(settings: Settings, url: str) -> None:
    loop = asyncio.get_running_loop()
    pipe = sys.stdin.fileno()

    def end() -> None:
        loop.remove_reader(pipe)
        os.kill(os.getpid(), signal.SIGINT)

    loop.add_reader(pipe, end)  # it closes with the supervisor
    await work(settings, url=url, port=settings.port, ready=lambda: None)


def _prepared() -> Settings:
    settings = Settings.load()
    set_up_logs(level=settings.log_level, as_json=settings.logs_json)
    _raise_open_files()
    return settings


def _raise_open_files() -> None:
    """Take what the system allows: each client connection is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _free(host: str, name: str, port: int) -> int:
    """Return the port, or a free one for 0; end with a word on what stands against it."""
    try:
        return free_port(host, port)
    except OSError as error:
        sys.exit(f"credenza: {name}: cannot listen on {host}:{port}: {error.strerror}")


async def _serve(settings: Settings, port: int) -> None:
    _cancel_on_sigterm()
    where = address(settings.host, port)

    def ready() -> None:
        _greet(settings, where)

    async with _database(settings, where) as url:
        if settings.workers > 1:
            await supervise(settings, url=url, port=port, ready=ready)
        else:
            await work(settings, url=url, port=port, ready=ready)


def _cancel_on_sigterm() -> None:
    """Give up the start cleanly; once it serves, signals mean to drain."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@contextlib.asynccontextmanager
async def _database(settings: Settings, where: str) -> AsyncIterator[str]:
    """Give the database's URL; the embedded one is started, migrated, and stopped at the end."""
    if not settings.is_embedded:
        yield settings.external_url()
        return
    try:
        async with embedded.running(settings.credenza_home, log.info, announce=where) as url:
            if not await bring_up_to_date(settings, url):
                sys.exit("credenza: the database could not be migrated; the log says why")
            yield url
    except (EmbeddedError, errors.Problem) as error:
        sys.exit(f"credenza: {error}")


def _greet(settings: Settings, url: str) -> None:
    where = settings.credenza_home if settings.is_embedded else "the database of DATABASE_URL"
    print(
        f"\nCredenza {__version__}\n"
        f"  serving  {url}\n"
        f"  docs     {url}/docs\n"
        f"  data in  {where}\n"
        f"  stop it  with Ctrl-C\n",
        flush=True,
    )
