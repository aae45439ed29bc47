"""Bytes by key and version, in this process and in Redis; whatever is down is a miss.

Must not know what is cached, nor the database. The rule that keeps it coherent: a miss leaves a
lease, a fill succeeds only where its own lease still stands, and a write, once committed, replaces
an older entry, deletes a lease and leaves alone what is absent. Each of these is decided at once:
in Redis by one script (`decide.lua`), in the process between two awaits.
"""

from credenza.cache.coherent import Cache
from credenza.cache.entries import Entry, Key
from credenza.cache.flights import Found
from credenza.cache.shelves import Shelf

__all__ = ["Cache", "Entry", "Found", "Key", "Shelf"]
