"""The forms that settings have: their vocabularies, and values that are checked when they are read.

Must not know which settings there are. What is refused is never told: it may be a secret.
"""

import importlib.util
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr


class Auth(StrEnum):
    """Who may use the API."""

    TOKEN = "token"  # noqa: S105 - the mode's name, not a token
    OFF = "off"


class TraceSampler(StrEnum):
    """Which requests are traced."""

    PARENT = "parentbased_traceidratio"
    RATIO = "traceidratio"


class LogLevel(StrEnum):
    """Which log lines are written: those of a level and of the ones after it; in any case."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        lower = str(value).lower()
        return cls(lower) if lower != value else None


class LogFormat(StrEnum):
    """How a log line is written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def _readable(path: Path) -> Path:
    """Refuse a file that cannot be read; the path is not told, for it may be the secret itself."""
    try:
        path.read_text()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    return path


SecretFile = Annotated[Path, AfterValidator(_readable)]

_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]{1,5})?")


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    """Return whether a URL has one of the schemes and is cut where its author meant it to be.

    A password with an unescaped `/`, `?` or `#` would otherwise end up in messages about ports.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return (
        parts.scheme in schemes
        and not parts.fragment
        and "@" not in parts.path
        and all(_HOST.fullmatch(host) for host in hosts)
    )


def _database_url(value: SecretStr) -> SecretStr:
    if not _is_url(value.get_secret_value(), ("postgresql", "postgres")):
        raise ValueError(
            "must be postgresql://user:password@host:port/database, with the password "
            "percent-encoded"
        )
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    if not _is_url(value.get_secret_value(), ("redis", "rediss", "unix")):
        raise ValueError(
            "must be redis://user:password@host:port/number, with the password percent-encoded"
        )
    return value


def _collector_url(value: str) -> str:
    if not _is_url(value, ("http", "https")):
        raise ValueError("must be http://host:port or https://host:port")
    # Its interface is FastAPI's own dependency, so that its name alone says nothing.
    if importlib.util.find_spec("opentelemetry.exporter") is None:
        raise ValueError("needs the extra `tracing` (pip install 'credenza[tracing]')")
    return value.rstrip("/")


CollectorUrl = Annotated[str, AfterValidator(_collector_url)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
