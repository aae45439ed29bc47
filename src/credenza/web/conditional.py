"""Conditional requests: headers in, `conditions` out, and what a GET answers (RFC 9110 §13).

Must not decide writes: their conditions are decided inside the SQL statement.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

from credenza import errors
from credenza.conditions import ANY, Conditions, Tags
from credenza.web.fields import Fields, text

_TAG = re.compile(r'[\s,]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')
_MAX_VERSION = 2**63 - 1

LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""From then on a date says nothing, and could not be counted on from."""


class Versioned(Protocol):
    """What can be asked for conditionally: a document or a collection."""

    @property
    def version(self) -> int:
        """Its version."""

    @property
    def updated_at(self) -> datetime:
        """The time of the last change."""

    @property
    def last_modified(self) -> str:
        """The same as an HTTP date."""


def write_conditions(fields: Fields) -> Conditions:
    """Return what must hold for a write; InvalidHeader where a list of tags cannot be parsed."""
    return Conditions(
        if_match=_tags(fields, b"if-match", weak=False),
        if_none_match=_tags(fields, b"if-none-match", weak=True),
        unmodified_since=_date(text(fields, b"if-unmodified-since")),
    )


def is_unmodified(fields: Fields, found: Versioned) -> bool:
    """Return whether a GET is answered 304; PreconditionFailed where it is 412 (§13.2.2)."""
    wanted = _tags(fields, b"if-match", weak=False)
    known = _tags(fields, b"if-none-match", weak=True)
    if wanted is not None and wanted != ANY and found.version not in wanted:
        raise errors.PreconditionFailed(f"It has version {found.version}.")
    if wanted is None:
        since = _date(text(fields, b"if-unmodified-since"))
        if since is not None and found.updated_at.replace(microsecond=0) > since:
            raise errors.PreconditionFailed(f"It was changed on {found.last_modified}.")
    if known is not None:
        return known == ANY or found.version in known
    since = _date(text(fields, b"if-modified-since"))
    return since is not None and found.updated_at.replace(microsecond=0) <= since


def known_tags(fields: Fields) -> frozenset[str] | Literal["*"] | None:
    """Return the tags that a client has of a list; PreconditionFailed where it is 412.

    A list's tags are weak, so that If-Match, which compares strongly, matches none (§8.8.3.2).
    """
    wanted, known = _opaque(fields, b"if-match"), _opaque(fields, b"if-none-match")
    if wanted is not None and wanted != ANY:
        raise errors.PreconditionFailed("A list has weak entity-tags alone.")
    return known if known is None or known == ANY else frozenset(tag for _, tag in known)


def _tags(fields: Fields, name: bytes, *, weak: bool) -> Tags | None:
    """Return the versions that an entity-tag list names; tags of another form name none.

    If-Match compares strongly, so that a weak tag never matches (§8.8.3.2).
    """
    tags = _opaque(fields, name)
    if tags is None or tags == ANY:
        return tags
    versions = (_version(tag) for is_weak, tag in tags if weak or not is_weak)
    return tuple(version for version in versions if version is not None)


def _opaque(fields: Fields, name: bytes) -> list[tuple[bool, str]] | Literal["*"] | None:
    """Return the tags of an entity-tag list as they are, and whether each is weak."""
    value = text(fields, name)
    if value is None:
        return None
    listed = value.strip(" \t,")  # empty elements mean nothing (§5.6.1.2)
    if listed == "*":
        return ANY
    tags, at = [], 0
    while at < len(listed):
        found = _TAG.match(listed, at)
        if found is None:
            raise errors.InvalidHeader(f"{name.decode()} is not a list of entity-tags.")
        tags.append((found[1] is not None, found[2]))
        at = found.end()
    return tags


def _version(tag: str) -> int | None:
    """Return a tag of ours as a version; no other spelling names the same one."""
    if not (tag.isascii() and tag.isdigit()) or (tag != "0" and tag.startswith("0")):
        return None
    version = int(tag) if len(tag) < len(str(_MAX_VERSION)) else _MAX_VERSION
    return version if str(version) == tag else None


def _date(value: str | None) -> datetime | None:
    """Return an HTTP date in UTC; one that is not valid is ignored, as the RFC asks (§13.1.3)."""
    if value is None:
        return None
    try:
        found = parsedate_to_datetime(value)
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return found if found < LATEST else None
