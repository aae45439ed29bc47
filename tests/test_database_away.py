"""When the database goes away, hangs or fails: what a client is told, and that it comes back."""

import asyncio
import os
import signal
import socket

import asyncpg
import httpx2
import pytest

from answers import problem
from conftest import Serve
from credenza import errors
from credenza.database import Database
from credenza.settings import Settings
from credenza.telemetry import DATABASE_ERRORS, Metrics
from databases import connected, create_migrated
from servers import Postgres, until


async def test_a_database_that_is_away_and_comes_back(postgres: Postgres, serve: Serve) -> None:
    """503 with Retry-After and the culprit's name while it is down; then on, without a restart."""
    name = await create_migrated(postgres)
    with serve(database_url=postgres.database(name)).client() as client:
        assert client.put("/data/a", json=1).status_code == 201
        assert sample(client, "credenza_database_up") == 1
        postgres.stop()
        try:
            for method in ("GET", "PUT", "DELETE"):
                answer = client.request(
                    method, "/data/a", content=b"2" if method == "PUT" else None
                )
                problem(answer, 503, "unavailable")
                assert answer.headers["retry-after"] == "1"
            problem(client.get("/data"), 503, "unavailable")
            ready = client.get("/health/ready")
            assert (ready.status_code, list(ready.json()["checks"])) == (503, ["database"])
            assert client.get("/health/live").status_code == 200
            health = client.get("/health")
            assert (health.status_code, health.json()["status"]) == (200, "degraded")
            assert sample(client, "credenza_database_up") == 0
            assert sample(client, 'credenza_database_errors_total{kind="away"}') >= 4
        finally:
            postgres.start()
        until(lambda: client.get("/health/ready").status_code == 200, "readiness")
        assert client.get("/data/a").json()["data"] == 1
        assert client.put("/data/a", json=2).status_code == 200
        assert sample(client, "credenza_database_up") == 1


def sample(client: httpx2.Client, series: str) -> float:
    """Return the value of a series, as `/metrics` writes it."""
    (line,) = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{series} ")
    ]
    return float(line.rpartition(" ")[2])


async def test_a_service_starts_before_its_database(postgres: Postgres, serve: Serve) -> None:
    """It answers 503 until the database is there, and then brings the schema up to date."""
    name = f"late_{os.getpid()}"
    service = serve(wait=False, database_url=postgres.database(name))
    until(lambda: "waiting for the database" in service.log(), "a line in the log")
    until(lambda: "serving" in service.output.read_text(), "the address")
    async with connected(postgres, "postgres") as admin:
        await admin.execute(f"CREATE DATABASE {name}")
    service.until_ready()
    with service.client() as client:
        assert client.post("/data", json=1).status_code == 201


async def test_a_database_that_hangs(postgres: Postgres, serve: Serve) -> None:
    """Connections on which nothing answers: 503 after QUERY_TIMEOUT, a write's outcome unknown."""
    name = await create_migrated(postgres)
    settings = {"database_url": postgres.database(name), "query_timeout": 0.5}
    async with connected(postgres, name) as admin:
        with serve(**settings).client() as client:
            client.put("/data/a", json=1)
            rows = await admin.fetch(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'credenza'"
            )
            signal_all(rows, signal.SIGSTOP)
            try:
                answer = problem(client.post("/data", json=2), 503, "unavailable")
            finally:
                signal_all(rows, signal.SIGCONT)
            assert answer["outcome"] == "unknown"
            until(lambda: client.get("/data/a").status_code == 200, "an answer")
            assert client.put("/data/a", json=3).json()["data"] == 3


async def test_nobody_asks_a_database_that_hangs(postgres: Postgres, serve: Serve) -> None:
    """The series tells of it all the same, and a line why; then both of its end."""
    name = await create_migrated(postgres)
    service = serve(database_url=postgres.database(name), log_level="warning")
    with service.client() as client:
        postgres.pause()
        try:
            until(lambda: "database away" in service.log(), "its line")
            assert sample(client, "credenza_database_up") == 0
        finally:
            postgres.resume()
        assert sample(client, 'credenza_database_errors_total{kind="away"}') >= 1
        until(lambda: "database back" in service.log(), "the line of its end")
        assert sample(client, "credenza_database_up") == 1
    told = [line for line in service.log_lines() if line["event"].startswith("database")]
    assert [line["event"] for line in told] == ["database away", "database back"]
    assert (told[0]["level"], told[0]["cause"]) == ("warning", "TimeoutError()")


def signal_all(rows: list[asyncpg.Record], number: int) -> None:
    """Send a signal to sessions of ours."""
    for row in rows:
        os.kill(row["pid"], number)


RAISE = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'made for a test' USING ERRCODE = new.id; END $$;
    CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON documents FOR EACH ROW
    WHEN (new.id ~ '^[0-9A-Z]{5}$') EXECUTE FUNCTION fail()
"""
UNKNOWN, ROLLED_BACK = ("unavailable", "unknown"), ("unavailable", None)
FAILURES = {
    "08006": UNKNOWN,  # the connection failed
    "57P01": UNKNOWN,  # an administrator ends the session
    "57P02": UNKNOWN,  # another session has crashed
    "25006": ROLLED_BACK,  # read only: a former primary
    "40001": ROLLED_BACK,  # could not serialise
    "40P01": ROLLED_BACK,  # deadlock
    "53100": ROLLED_BACK,  # disk full
    "53200": ROLLED_BACK,  # out of memory
    "55P03": ROLLED_BACK,  # a lock is not to be had
    "58030": ROLLED_BACK,  # input or output failed
    "57014": ROLLED_BACK,  # it waited too long for another write
    "54000": ("unrepresentable-json", None),
    "54001": ("unrepresentable-json", None),
    "22P02": ("unrepresentable-json", None),
    "22P05": ("unrepresentable-json", None),
    "42P01": ROLLED_BACK,  # no such table: the schema is not there
    "42501": ROLLED_BACK,  # no right to the table
    "XX000": ("internal", None),
}


async def test_what_postgresql_says_has_one_meaning(postgres: Postgres, serve: Serve) -> None:
    """Each kind of failure is one problem: 503 for the service's state, 422 for what was asked."""
    name = await create_migrated(postgres)
    async with connected(postgres, name) as admin:
        await admin.execute(RAISE)
    with serve(database_url=postgres.database(name)).client() as client:
        client.put("/data/a", json=1)
        answers = {state: client.put(f"/data/{state}", json=1) for state in FAILURES}
        counted = {
            kind: sample(client, f'credenza_database_errors_total{{kind="{kind}"}}')
            for kind in DATABASE_ERRORS
        }
        assert client.get("/data/a").status_code == 200
    said = {
        state: (answer.json()["code"], answer.json().get("outcome"))
        for state, answer in answers.items()
    }
    assert said == FAILURES
    assert all(counted[kind] >= 1 for kind in ("away", "failed", "timeout", "refused")), counted
    status = {"unavailable": 503, "internal": 500}
    assert {state: answer.status_code for state, answer in answers.items()} == {
        state: status.get(code, 422) for state, (code, _) in FAILURES.items()
    }


async def test_a_pool_that_lends_nothing(postgres: Postgres) -> None:
    """Who gets no connection within QUERY_TIMEOUT is told so, and counted as such.

    The database is well all the same, by a connection that nobody else takes.
    """
    url, metrics = postgres.database(await create_migrated(postgres)), Metrics()
    settings = Settings(database_pool_size=1, query_timeout=0.2)
    database = Database(settings, url=url, metrics=metrics)
    await database.open()
    try:
        async with database.connection(blames=errors.Problem):
            with pytest.raises(errors.Unavailable, match="in time"):
                await database.revision()
            await database.ping()
        assert await database.revision()
    finally:
        await database.close()
    exposed = metrics.exposition()[0].decode()
    assert 'credenza_database_errors_total{kind="busy"} 1.0' in exposed
    assert 'credenza_database_errors_total{kind="away"} 0.0' in exposed


async def test_a_server_that_takes_connections_and_says_nothing() -> None:
    """It is away, whatever the pool could lend: who waited in vain is not told that it is busy."""
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://tester@127.0.0.1:{server.getsockname()[1]}/none?sslmode=disable"
        database = Database(Settings(query_timeout=0.2), url=url, metrics=metrics)
        await database.open()
        try:
            with pytest.raises(errors.Unavailable, match="cannot be reached"):
                await database.revision()
        finally:
            await database.close()
    exposed = metrics.exposition()[0].decode()
    assert 'credenza_database_errors_total{kind="away"} 1.0' in exposed
    assert 'credenza_database_errors_total{kind="busy"} 0.0' in exposed
    assert "credenza_database_up 0.0" in exposed


async def test_a_write_that_waits_too_long_is_given_up(postgres: Postgres, serve: Serve) -> None:
    """QUERY_TIMEOUT ends it on the server: 503, to be tried again, and nothing is written."""
    name = await create_migrated(postgres)
    settings = {"database_url": postgres.database(name), "query_timeout": 0.3}
    async with connected(postgres, name) as admin:
        with serve(**settings).client() as client:
            client.put("/data/a", json=1)
            async with admin.transaction():
                await admin.execute("SELECT 1 FROM documents FOR UPDATE")
                answer = await asyncio.to_thread(client.put, "/data/a", json=2)
            assert "outcome" not in problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert client.get("/data/a").json()["data"] == 1
