"""Who is let in: the bearer token, and what a web page of another site may not do.

Decided from a request's headers alone, before its body is read. Must not know what it is about.
"""

import hmac
import re
import time
from typing import Final

import structlog

from credenza import errors
from credenza.settings import Settings
from credenza.web.fields import Fields

TOKEN_SECONDS: Final = 1.0
"""How long a token is taken as it was read; an unknown one makes it be read again at once."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
MAX_NAMES: Final = 1_000
PORT: Final = re.compile(r":\d+$")

log = structlog.get_logger()


class Access:
    """Raises the problem that stands against serving a request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wants_token = settings.wants_token
        self._token = b""
        self._read_at = float("-inf")
        self._own_names = LOCAL_NAMES | {settings.host}
        self._is_private = settings.is_loopback and not self._wants_token
        self._own_hosts: set[bytes] = {b""}

    def check(self, method: str, fields: Fields) -> None:
        """Return if the request is let in; else Unauthenticated, Forbidden or Unavailable."""
        if self._wants_token and not self._is_bearer(fields.get(b"authorization", b"")):
            raise errors.Unauthenticated(headers={"WWW-Authenticate": "Bearer"})
        if self._is_private:
            self._refuse_foreign(method, fields)

    def lets_in(self, method: str, fields: Fields) -> bool:
        """Return whether `check` raises nothing."""
        if self._is_private and method == "GET" and fields.get(b"host", b"") in self._own_hosts:
            return True
        try:
            self.check(method, fields)
        except errors.Problem:
            return False
        return True

    def _is_bearer(self, authorization: bytes) -> bool:
        """Compare the bearer token in constant time (RFC 6750 §2.1)."""
        scheme, _, credentials = authorization.partition(b" ")
        shown, is_bearer = credentials.strip(), scheme.lower() == b"bearer"
        if self._is_token(shown, TOKEN_SECONDS):
            return is_bearer
        return self._is_token(shown, 0.0) and is_bearer

    def _is_token(self, shown: bytes, max_age: float) -> bool:
        if time.monotonic() - self._read_at >= max_age:
            self._token = self._read()
            self._read_at = time.monotonic()
        # A file that is just being written anew may be empty: then nobody is admitted.
        return hmac.compare_digest(shown, self._token) and bool(self._token)

    def _read(self) -> bytes:
        try:
            return self._settings.token().encode()
        except (OSError, UnicodeError) as error:
            log.exception("token unreadable")
            raise errors.Unavailable("The service cannot read its token.") from error

    def _refuse_foreign(self, method: str, fields: Fields) -> None:
        """Raise Forbidden where a web page of another site may want to read or write here.

        Such a page reaches a service on loopback through the browser of its reader: directly, where
        it can write but not read, or by a name of its own that it lets point here.
        """
        if method not in SAFE_METHODS and fields.get(b"sec-fetch-site") == b"cross-site":
            raise errors.Forbidden("A web page of another site asks (Sec-Fetch-Site: cross-site).")
        host = fields.get(b"host", b"")
        if host not in self._own_hosts and not self._is_own(host):
            raise errors.Forbidden(
                f"{host.decode('latin-1')[:80]!r} in Host is not this machine: without a token the "
                f"service answers to {', '.join(sorted(self._own_names))}."
            )

    def _is_own(self, host: bytes) -> bool:
        name = PORT.sub("", host.decode("latin-1")).lower()
        if name not in self._own_names:
            return False
        if len(self._own_hosts) < MAX_NAMES:
            self._own_hosts.add(host)
        return True
