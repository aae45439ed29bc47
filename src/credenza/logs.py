"""Log lines: who writes them, in which form, and what is never told.

Must not know what is logged. The line of a request is put together in `records`.
"""

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import ExcInfo


class Lines:
    """Standard error for log lines: where it fails they are lost, and nothing else is.

    Where it is a pipe that is full, writing waits for its reader, and so does the process.
    """

    def write(self, text: str) -> None:
        """Write whole lines."""
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Send what was written on."""
        with suppress(OSError):
            sys.stderr.flush()


class _Relay(logging.Handler):
    """Writes what libraries tell of themselves as all other lines.

    Of an exception without its message, which may show what a client sent.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        log = structlog.get_logger(library=record.name)
        if record.exc_info:
            log.error("failed", exc_info=record.exc_info)
        else:
            log.warning("warned", detail=record.getMessage().splitlines()[0])


def set_up_logs(*, level: str, as_json: bool) -> None:
    """Send log lines to standard error: JSON for collectors, coloured text for a terminal."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        shared += [
            ExceptionRenderer(_as_records),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    else:
        shared.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_write_frames
            )
        )
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", Lines())),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Relay(level=logging.WARNING)])


def _as_records(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """Return types and frames of an exception and its causes, and nothing that it says.

    Messages and local variables hold documents: PostgreSQL shows the row that it refuses.
    """
    records = ExceptionDictTransformer(show_locals=False)(exc_info)
    return [{name: record[name] for name in ("exc_type", "frames")} for record in records]


def _write_frames(out: TextIO, exc_info: ExcInfo) -> None:
    """Write the same for people, without the causes."""
    frames = "".join(traceback.format_tb(exc_info[2]))
    out.write(f"\n{frames}{exc_info[0].__qualname__}")


def _to_json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
