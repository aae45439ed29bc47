"""HTTP: one module a resource, and what all of them share.

Knows `documents` and the modules below; must not know `store`, `cache` or `sql`.
"""
