"""Settings: what is set counts; what cannot be used is one clear line that tells no secret."""

import socket
import subprocess
from pathlib import Path

import httpx2
import pytest

from conftest import Serve
from credenza.serving import free_port, kept
from credenza.settings import Settings
from service import CREDENZA, PATIENCE, environment

SECRET = "Hemlig-4711"
"""Stands in every value that must not be told."""

UNUSABLE = [
    ("PORT", "http"),
    ("PORT", "65536"),
    ("WORKERS", "0"),
    ("METRICS_PORT", "-1"),
    ("DATABASE_URL", f"mysql://user:{SECRET}@127.0.0.1/db"),
    ("DATABASE_URL", f"postgresql://user:12/{SECRET}@127.0.0.1/db"),
    ("DATABASE_URL", f"postgresql://user:half?{SECRET}@127.0.0.1/db"),
    ("MIGRATION_DATABASE_URL", f"postgresql://user:half#{SECRET}@127.0.0.1/db"),
    ("MIGRATION_DATABASE_URL", f"postgresql://user:[{SECRET}@127.0.0.1/db"),
    ("MIGRATION_DATABASE_URL", f"user:{SECRET}@127.0.0.1"),
    ("REDIS_URL", f"http://:{SECRET}@127.0.0.1"),
    ("REDIS_URL", f"redis://:{SECRET}/half@127.0.0.1"),
    ("DATABASE_PASSWORD_FILE", f"/nowhere/{SECRET}"),
    ("REDIS_PASSWORD_FILE", f"/nowhere/{SECRET}"),
    ("AUTH_TOKEN_FILE", f"/nowhere/{SECRET}"),
    ("SECRET_KEY_FILE", f"/nowhere/{SECRET}"),
    ("DATABASE_POOL_SIZE", "0"),
    ("DATABASE_STATEMENT_CACHE", "-1"),
    ("QUERY_TIMEOUT", "0"),
    ("UNSAFE_DURABILITY", "perhaps"),
    ("CACHE_TTL", "61"),
    ("NEAR_CACHE_BYTES", "-1"),
    ("AUTH", "basic"),
    ("MAX_BODY_BYTES", "1"),
    ("MAX_DEPTH", "0"),
    ("MAX_PAGE_BYTES", "0"),
    ("MAX_IN_FLIGHT", "0"),
    ("MAX_CONNECTIONS", "many"),
    ("BODY_TIMEOUT", "0"),
    ("DRAIN_SECONDS", "-1"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
    ("OTEL_TRACES_SAMPLER", "always_on"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
]
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8000,
    "workers": 1,
    "database_url": None,
    "redis_url": None,
    "cache_ttl": 60,
    "database_pool_size": 10,
    "max_body_bytes": 1024 * 1024,
    "max_depth": 100,
    "query_timeout": 5,
    "drain_seconds": 8,
    "auth": None,
    "metrics_port": None,
    "unsafe_durability": False,
}


def refused(*command: str, **settings: object) -> list[str]:
    """Run a command that must not start; return what it says, checked for what it must not say."""
    done = subprocess.run(
        [CREDENZA, *(command or ("serve",))],
        env=environment(**({"auth_token": SECRET} | settings)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert SECRET not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def rounds() -> list[dict[str, str]]:
    """Return the bad values as few environments, each with the names that still have one."""
    found: list[dict[str, str]] = []
    for name, value in UNUSABLE:
        for settings in (*found, {}):
            if name not in settings:
                settings[name] = value
                break
        if settings not in found:
            found.append(settings)
    return found


@pytest.mark.parametrize("number", range(len(rounds())))
def test_what_cannot_be_used_is_one_line(number: int) -> None:
    """Bad values end the start with a line each that names the setting and shows no secret."""
    wrong = rounds()[number]
    lines = refused(**wrong)
    assert all(line.startswith("credenza: ") and len(line) < 160 for line in lines), lines
    assert sorted(line.split(": ")[1] for line in lines) == sorted(wrong)


def test_every_setting_that_can_be_wrong_is_tested() -> None:
    """Each setting has a bad value above, unless every text is a good one."""
    any_text = {"HOST", "ENVIRONMENT", "CREDENZA_HOME", "AUTH_TOKEN", "SECRET_KEY"}
    names = {name.upper() for name in Settings.model_fields}
    assert {name for name, _ in UNUSABLE} | any_text == names


def test_other_commands_say_it_alike(folder: Path) -> None:
    """Commands that use a service read the settings in the same way; an empty value is none."""
    (line,) = refused("export", str(folder / "out"), "--collection", "x", port="x", cache_ttl="")
    assert line.startswith("credenza: PORT: ")


def test_an_open_address_needs_a_decision(folder: Path) -> None:
    """Without a token or AUTH=off no address but loopback is served, and the line says what to do.

    An empty token is none.
    """
    for host, token in (("0.0.0.0", ""), ("example.org", " ")):
        (line,) = refused(host=host, auth_token=token, credenza_home=folder)
        assert f"HOST={host} is open to others" in line
        assert "set AUTH_TOKEN or AUTH_TOKEN_FILE, or say AUTH=off" in line


def test_a_token_that_is_asked_for_must_be_there(folder: Path) -> None:
    """AUTH=token without one, and a file that is empty, are refused also on loopback."""
    (line,) = refused(auth="token", auth_token="")
    assert "AUTH=token needs AUTH_TOKEN or AUTH_TOKEN_FILE" in line
    (folder / "token").write_text("\n")
    (line,) = refused(auth_token_file=folder / "token")
    assert "AUTH_TOKEN_FILE is empty" in line


def test_published_passwords_are_for_development(folder: Path, serve: Serve) -> None:
    """Passwords of the development manifests are refused by name in any other environment."""
    (folder / "password").write_text("dev-only-redis\n")
    published = {
        "database_url": "postgresql://devops:dev-only-postgres@127.0.0.1/credenza",
        "redis_password_file": folder / "password",
    }
    for name in ("staging", "prod", "production"):
        (line,) = refused(environment=name, **published)
        assert f"ENVIRONMENT={name} with a password that is published, in DATABASE" in line
        assert ", REDIS_PASSWORD_FILE: " in line
        assert "dev-only-postgres" not in line
    with serve(environment="dev", auth_token="dev-only-token").client() as client:
        assert client.get("/health/live").is_success


def test_a_file_of_bytes_is_no_secret(folder: Path) -> None:
    """A secret file that is not text is refused without telling what is in it."""
    (folder / "key").write_bytes(SECRET.encode() + b"\xff")
    (line,) = refused(secret_key_file=folder / "key")
    assert line == "credenza: SECRET_KEY_FILE: the file is not UTF-8 text"


@pytest.mark.parametrize("name", ["PORT", "METRICS_PORT"])
def test_a_port_that_is_taken(name: str, folder: Path) -> None:
    """A port that something listens on is told by name before the database is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"port": 0, "credenza_home": folder / "home", name.lower(): port}
        (line,) = refused(**settings)
    assert line == f"credenza: {name}: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not (folder / "home").exists()


def test_a_free_port_stays_free_until_it_is_taken() -> None:
    """Between its choice and the server no other program gets it, as by connecting somewhere."""
    port = free_port("127.0.0.1", 0)
    with kept("127.0.0.1", port):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port), reuse_port=True):
            socket.create_connection(("127.0.0.1", port)).close()
    socket.create_server(("127.0.0.1", port)).close()


def test_two_ports_are_two(folder: Path) -> None:
    """METRICS_PORT must not be PORT."""
    (line,) = refused(port=8001, metrics_port=8001)
    assert "METRICS_PORT is the same as PORT" in line


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are those that the documentation promises."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    settings = Settings.load()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("said", ["warning", "WARNING", "Warning"])
def test_levels_are_known_in_any_case(said: str) -> None:
    """Other programs write them in capitals."""
    assert Settings.model_validate({"log_level": said}).log_level == "warning"


def test_settings_change_what_the_service_does(serve: Serve) -> None:
    """Limits come from the environment and are shown in the service document."""
    running = serve(max_body_bytes=2048, max_depth=3, max_page_bytes=4096, cache_ttl=7.5)
    with running.client() as client:
        limits = client.get("/v1").json()["limits"]
        assert limits["max_body_bytes"] == 2048
        assert limits["max_depth"] == 3
        assert limits["max_page_bytes"] == 4096
        assert _code(client, b"[" * 4 + b"]" * 4) == "unrepresentable-json"
        assert _code(client, b'"%s"' % (b"x" * 2047)) == "payload-too-large"
        assert client.post("/data", content=b'"%s"' % (b"x" * 2046)).status_code == 201


def _code(client: httpx2.Client, body: bytes) -> str:
    code: str = client.post("/data", content=body).json()["code"]
    return code
