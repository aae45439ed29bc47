"""Preconditions of a request as values (RFC 9110 §13): what must hold of a stored row.

Must not know HTTP's syntax (`web.conditional` parses it) or SQL (`store` binds the fields).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

ANY: Final = "*"

Tags = tuple[int, ...] | Literal["*"]
"""Versions named by an entity-tag list, or `*`: whichever there is."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """If-Match, If-None-Match and If-Unmodified-Since of a write; None: not asked for.

    HTTP dates have whole seconds, so `unmodified_since` holds until that second is over.
    """

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    unmodified_since: datetime | None = None

    @property
    def must_exist(self) -> bool:
        """Whether nothing may be written where nothing is stored (RFC 9110 §13.1.1)."""
        return self.if_match is not None

    @property
    def must_be_absent(self) -> bool:
        """Whether nothing may be written where something is stored (RFC 9110 §13.1.2)."""
        return self.if_none_match == ANY

    @property
    def contradict(self) -> bool:
        """Whether no row can fulfil them: something and nothing would have to be stored."""
        return self.must_exist and self.must_be_absent

    @property
    def wanted(self) -> list[str] | None:
        """Versions of which one must be stored, as text for SQL; None: whichever."""
        return _versions(self.if_match)

    @property
    def unwanted(self) -> list[str] | None:
        """Versions none of which may be stored, as text for SQL; None: whichever."""
        return _versions(self.if_none_match)

    @property
    def changed_before(self) -> datetime | None:
        """The moment before which the last change must lie; If-Match wins over it (§13.2.2)."""
        if self.unmodified_since is None or self.if_match is not None:
            return None
        return self.unmodified_since + timedelta(seconds=1)

    def hold(self, version: int, updated_at: datetime) -> bool:
        """Return whether all hold of a stored row whose lock is held."""
        if self.if_match not in (None, ANY) and version not in self.if_match:
            return False
        if self.if_none_match == ANY:
            return False
        if self.if_none_match is not None and version in self.if_none_match:
            return False
        return self.changed_before is None or updated_at < self.changed_before


def _versions(tags: Tags | None) -> list[str] | None:
    if tags is None or tags == ANY:
        return None
    return [str(version) for version in tags]


NONE: Final = Conditions()
