"""The settings of the environment: one frozen, typed object; unsafe values refuse to start.

Must not know what is built from the settings. None of our other modules reads the environment;
libraries do: OpenTelemetry's exporter `OTEL_EXPORTER_OTLP_HEADERS` and its kin, prometheus-client
`PROMETHEUS_MULTIPROC_DIR`. Each field's description is its documentation
(`docs/reference/settings.md` is made from it); units are in the description. Secrets may come as
a value or as the path of a file (`…_FILE`); the file wins and is read again whenever it is needed.
"""

import ipaddress
import os
import sys
from pathlib import Path
from typing import Final, Self

import platformdirs
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from credenza.forms import (
    Auth,
    CollectorUrl,
    DatabaseUrl,
    LogFormat,
    LogLevel,
    RedisUrl,
    SecretFile,
    TraceSampler,
)


class SettingsError(Exception):
    """Settings cannot be used; its text has a line each, which names it and never its value."""


PUBLISHED: Final = "dev-only-"
"""How each password and token begins that stands in the manifests for development."""


MAX_GROWTH: Final = 2
"""How many times as long as `MAX_BODY_BYTES` a document's value may be as it is given back.

Spaces alone make a body half as long again, numbers any number of times.
"""


def default_home() -> Path:
    """Return where embedded data lives: root's in `/var/lib`, a user's in the data folder."""
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/credenza")
    return platformdirs.user_data_path("credenza")


class Settings(BaseSettings):
    """Everything that can be configured, read once from the environment."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that share the port; in Kubernetes keep 1."
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Also serve `/metrics`, without a token, on this port."
    )
    environment: str = Field(
        "development",
        description="Name of the deployment. Any but `dev` and `development` refuses to start with "
        "a password or token of the development manifests (`dev-only-…`).",
    )

    # Where the data is
    database_url: DatabaseUrl | None = Field(
        None,
        description="`postgresql://…` of PostgreSQL 14 or newer; absent: the embedded one.",
    )
    database_password_file: SecretFile | None = Field(
        None, description="File with the database password, read at each connect."
    )
    migration_database_url: DatabaseUrl | None = Field(
        None, description="Direct URL for migrations where `DATABASE_URL` is a pooler."
    )
    database_pool_size: int = Field(
        10, ge=1, le=1000, description="Connections to the database, per process."
    )
    database_statement_cache: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Prepared statements kept per connection; 0 behind PgBouncer before 1.21.",
    )
    query_timeout: float = Field(
        5.0, gt=0, le=3600, description="Seconds after which a statement is given up."
    )
    unsafe_durability: bool = Field(
        False,
        description="Start although fsync, full_page_writes or synchronous_commit is off.",
    )
    credenza_home: Path = Field(
        default_factory=default_home,
        description="Folder of the embedded PostgreSQL; default: the user's data folder, "
        "`/var/lib/credenza` for root.",
    )

    # Cache
    redis_url: RedisUrl | None = Field(
        None,
        description="`redis://…` of Redis 6 or Valkey; absent: near cache only, and only in the "
        "one process of an embedded home.",
    )
    redis_password_file: SecretFile | None = Field(
        None, description="File with the Redis password, read at each connect."
    )
    cache_ttl: float = Field(
        60.0, gt=0, le=60, description="Seconds that a cached document may live at the most."
    )
    near_cache_bytes: int = Field(
        64 * 1024 * 1024, ge=0, description="Bytes of the cache inside each process; 0: none."
    )

    # Who may use it
    auth: Auth | None = Field(
        None,
        description="`token` asks for a bearer token, `off` for nothing; absent: `token` where one "
        "is set, nothing on loopback, and no start anywhere else.",
    )
    auth_token: SecretStr | None = Field(None, description="The bearer token.")
    auth_token_file: SecretFile | None = Field(
        None, description="File with the bearer token; wins over `AUTH_TOKEN`."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Keys that sign cursors, separated by commas: the newest first signs, all "
        "verify; absent: one made once and kept in the database.",
    )
    secret_key_file: SecretFile | None = Field(
        None, description="File with the signing keys, a line each; wins over `SECRET_KEY`."
    )

    # Limits
    max_body_bytes: int = Field(
        1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="Bytes of a request's body."
    )
    max_depth: int = Field(100, ge=1, le=500, description="Levels that a JSON value may nest.")
    max_page_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Bytes of data in a page; `next` comes early."
    )
    max_in_flight: int = Field(
        512, ge=1, description="Requests under way at once, per process; more get 503."
    )
    max_connections: int = Field(
        4096, ge=1, description="Client connections, per process; more wait to be accepted."
    )
    body_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds that a request's body may take; of an import, and of an answer in "
        "many parts, the time between two parts.",
    )
    drain_seconds: float = Field(
        8.0, ge=0, le=600, description="Seconds of serving on after SIGTERM, for clients to leave."
    )

    # Logs
    log_level: LogLevel = Field(
        LogLevel.INFO,
        description="Which log lines are written: those of a level and of the ones after it.",
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="json, console, or auto: console on a terminal."
    )
    otel_exporter_otlp_endpoint: CollectorUrl | None = Field(
        None,
        description="Address of a collector that takes traces by OTLP over HTTP, without a path; "
        "nothing is traced without it.",
    )
    otel_traces_sampler: TraceSampler = Field(
        TraceSampler.PARENT,
        description="parentbased_traceidratio: whoever sends a `traceparent` decides for its "
        "requests; traceidratio: nobody else decides.",
    )
    otel_traces_sampler_arg: float = Field(
        0.01, ge=0, le=1, description="The share of requests that is traced."
    )

    @classmethod
    def load(cls) -> Self:
        """Return the settings of the environment; SettingsError where they cannot be used."""
        try:
            return cls()
        except ValidationError as error:
            # Pydantic's own text repeats the values, and they may be secrets.
            faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise SettingsError("\n".join(_fault(fault) for fault in faults))

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> Self:
        if self.metrics_port is not None and self.metrics_port == self.port:
            raise ValueError("METRICS_PORT is the same as PORT: it must be another one")
        if self.environment not in {"dev", "development"} and (names := self._published()):
            raise ValueError(
                f"ENVIRONMENT={self.environment} with a password that is published, in "
                f"{', '.join(names)}: those that begin with {PUBLISHED} are for development alone"
            )
        if self.auth_token_file is not None and self.auth is not Auth.OFF and not self.token():
            raise ValueError("AUTH_TOKEN_FILE is empty: it must have the bearer token")
        if self.auth is Auth.TOKEN and not self.token():
            raise ValueError("AUTH=token needs AUTH_TOKEN or AUTH_TOKEN_FILE")
        if self.auth is None and not self.token() and not self.is_loopback:
            raise ValueError(
                f"HOST={self.host} is open to others: set AUTH_TOKEN or AUTH_TOKEN_FILE, "
                "or say AUTH=off"
            )
        return self

    def _published(self) -> list[str]:
        """Return the names of the secrets that hold a password of the development manifests."""
        secrets = {
            "DATABASE_URL": self.external_url(),
            "DATABASE_PASSWORD_FILE": self.database_password(),
            "MIGRATION_DATABASE_URL": self.migration_url() if self.migration_database_url else "",
            "REDIS_URL": "" if self.redis_url is None else self.redis_url.get_secret_value(),
            "REDIS_PASSWORD_FILE": self.redis_password(),
            "AUTH_TOKEN": self.token(),
            "SECRET_KEY": "".join(self.secret_keys()),
        }
        return [name for name, secret in secrets.items() if PUBLISHED in secret]

    @property
    def max_text_bytes(self) -> int:
        """Bytes of a document's value as it is given back: spaces and numbers are written out."""
        return MAX_GROWTH * self.max_body_bytes

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the one that ships in a wheel."""
        return self.database_url is None

    @property
    def wants_token(self) -> bool:
        """Whether requests must carry the bearer token."""
        return self.auth is not Auth.OFF and bool(self.token())

    @property
    def logs_json(self) -> bool:
        """Whether log lines are JSON."""
        if self.log_format is LogFormat.AUTO:
            return not sys.stderr.isatty()
        return self.log_format is LogFormat.JSON

    def external_url(self) -> str:
        """Return the URL of a database that is not embedded; empty where it is."""
        return "" if self.database_url is None else self.database_url.get_secret_value()

    def migration_url(self) -> str:
        """Return the URL for migrations, which need a direct one; empty where it is embedded."""
        if self.migration_database_url is not None:
            return self.migration_database_url.get_secret_value()
        return self.external_url()

    def token(self) -> str:
        """Return the bearer token as it is now; empty where there is none."""
        return _secret(self.auth_token_file, self.auth_token)

    def database_password(self) -> str:
        """Return the database password as it is now; empty: the URL's own."""
        return _secret(self.database_password_file, None)

    def redis_password(self) -> str:
        """Return the Redis password as it is now; empty: the URL's own."""
        return _secret(self.redis_password_file, None)

    def secret_keys(self) -> list[str]:
        """Return the signing keys, newest first; empty: the one in the database."""
        text = _secret(self.secret_key_file, self.secret_key)
        return [key.strip() for key in text.replace("\n", ",").split(",") if key.strip()]


def _secret(file: Path | None, value: SecretStr | None) -> str:
    text = file.read_text() if file is not None else value.get_secret_value() if value else ""
    return text.strip()


def _fault(fault: ErrorDetails) -> str:
    """Return one fault as `NAME: what is wrong`; rules about several settings name them."""
    names = [str(name).upper() for name in fault["loc"]]
    return ": ".join([*names, fault["msg"].removeprefix("Value error, ")])
