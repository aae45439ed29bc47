"""Health: what the process says about itself and of what it depends on, also in bad times."""

import asyncio
import time
from collections.abc import Callable

import httpx2
import pytest

from conftest import Serve
from credenza import __version__
from databases import connected, create_database
from servers import Postgres, Valkey, until
from service import Running

PATHS = ("/health", "/health/live", "/health/ready", "/health/startup")
PROMPT = 5.0
"""Seconds for an answer that may wait 1 s for a dependency, on a busy machine; never 30."""

HEALTHY = {"status": "ok", "detail": None}


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of an empty database of the wheel's server."""
    return postgres.database(asyncio.run(create_database(postgres)))


def timed(client: httpx2.Client, path: str) -> httpx2.Response:
    """Ask, and fail where the answer comes too late for a probe."""
    started = time.monotonic()
    answer = client.get(path)
    assert time.monotonic() - started < PROMPT, path
    assert answer.headers["cache-control"] == "no-store"
    return answer


def becomes(client: httpx2.Client, path: str, holds: Callable[[httpx2.Response], bool]) -> None:
    """Wait until an answer is as it must be."""
    until(lambda: holds(client.get(path)), f"{path}: {client.get(path).text}")


def test_a_healthy_service(client: httpx2.Client) -> None:
    """All four answer 200 with the version; /health and /health/ready show each dependency."""
    checks = {"database": HEALTHY, "cache": HEALTHY}
    for path in PATHS:
        answer = timed(client, path)
        assert answer.status_code == 200, path
        shown = checks if path in {"/health", "/health/ready"} else {}
        assert answer.json() == {"status": "ok", "version": __version__, "checks": shown}, path


def test_a_frozen_database(serve: Serve, postgres: Postgres, database: str) -> None:
    """A database that hangs: /health says so within a second or so, ready is 503, live is 200.

    Without Redis an external database has no cache, and nothing is wrong with that.
    """
    running = serve(database_url=database)
    with running.client() as client:
        becomes(client, "/health/startup", lambda answer: answer.status_code == 200)
        health = client.get("/health").json()
        assert (health["status"], health["checks"]["cache"]["status"]) == ("ok", "off")
        postgres.pause()
        try:
            for _ in range(3):  # more askers than one connection that hangs
                _is_degraded(client)
        finally:
            postgres.resume()
        becomes(client, "/health/ready", lambda answer: answer.status_code == 200)
        assert client.get("/health").json()["status"] == "ok"


def _is_degraded(client: httpx2.Client) -> None:
    health = timed(client, "/health")
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    database = health.json()["checks"]["database"]
    assert database["status"] == "down"
    # Who asks shortly before the question is given up hears of that.
    assert database["detail"] in {"no answer within 1 s", "The database does not answer."}
    ready = timed(client, "/health/ready")
    assert ready.status_code == 503
    assert ready.json()["status"] == "unavailable"
    assert list(ready.json()["checks"]) == ["database"]
    assert timed(client, "/health/live").status_code == 200
    assert timed(client, "/health/startup").status_code == 200


def test_a_stopped_database(serve: Serve, postgres: Postgres, database: str) -> None:
    """A database that is gone: 503 names it and the way out; when it is back, all is well."""
    with serve(database_url=database).client() as client:
        postgres.stop()
        try:
            assert timed(client, "/health").json()["status"] == "degraded"
            ready = timed(client, "/health/ready")
            assert ready.status_code == 503
            assert ready.json()["checks"]["database"]["status"] == "down"
            assert "cannot be reached" in ready.json()["checks"]["database"]["detail"]
            assert timed(client, "/health/live").status_code == 200
            assert client.get("/data/a").json()["code"] == "unavailable"
        finally:
            postgres.start()
        becomes(client, "/health/ready", lambda answer: answer.status_code == 200)


def test_redis_is_down(serve: Serve, database: str, valkey: Valkey) -> None:
    """Without Redis the service is degraded and still ready; with it again it is well."""
    running = serve(database_url=database, redis_url=valkey.url)
    with running.client() as client:
        becomes(client, "/health", lambda answer: answer.json()["status"] == "ok")
        valkey.stop()
        try:
            becomes(client, "/health", lambda answer: answer.json()["status"] == "degraded")
            health = timed(client, "/health")
            assert health.status_code == 200
            assert health.json()["checks"]["cache"]["status"] == "degraded"
            assert health.json()["checks"]["database"] == HEALTHY
            ready = timed(client, "/health/ready")
            assert ready.status_code == 200
            assert ready.json()["checks"]["cache"]["status"] == "degraded"
            assert client.post("/data", json=1).status_code == 201
        finally:
            valkey.start()
        becomes(client, "/health", lambda answer: answer.json()["status"] == "ok")


def test_before_the_schema_is_there(serve: Serve, postgres: Postgres) -> None:
    """Startup and ready are 503 and name the schema until it can be made; live is 200."""
    name = asyncio.run(create_database(postgres, "CREATE ROLE poor LOGIN"))
    url = postgres.database(name).replace("tester@", "poor@")
    running = serve(database_url=url, wait=False)
    until(lambda: _listens(running), "it does not listen")
    with running.client() as client:
        for path in ("/health/startup", "/health/ready"):
            answer = timed(client, path)
            assert answer.status_code == 503, path
            assert "schema is at nothing" in answer.json()["checks"]["database"]["detail"]
        assert timed(client, "/health/live").status_code == 200
        assert timed(client, "/health").json()["status"] == "degraded"
        asyncio.run(_execute(postgres, name, "GRANT CREATE ON SCHEMA public TO poor"))
        becomes(client, "/health/startup", lambda answer: answer.status_code == 200)
        assert timed(client, "/health/ready").status_code == 200


async def _execute(server: Postgres, name: str, text: str) -> None:
    async with connected(server, name) as connection:
        await connection.execute(text)


def _listens(running: Running) -> bool:
    """Return whether the service listens; its address is printed before it is ready."""
    for line in running.output.read_text().splitlines():
        if line.strip().startswith("serving"):
            running.url = line.split()[1]
    return bool(running.url)


def test_a_database_that_does_not_exist(serve: Serve, postgres: Postgres) -> None:
    """What PostgreSQL refuses at the connect is 503, never 500, and the log says why."""
    running = serve(database_url=postgres.database("nowhere"), wait=False)
    until(lambda: _listens(running), "it does not listen")
    with running.client() as client:
        assert client.get("/health/ready").status_code == 503
        assert client.get("/data/a").json()["code"] == "unavailable"
        assert client.get("/health/startup").status_code == 503
    until(lambda: 'database \\"nowhere\\" does not exist' in running.log(), running.log())


def test_only_reading_is_answered(client: httpx2.Client) -> None:
    """The contract has GET alone here, and HEAD with it; another method is 405 and names them."""
    for path in PATHS:
        assert (client.head(path).status_code, client.head(path).content) == (200, b"")
        answer = client.post(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
