"""The address of a service as a URL, for those who serve there and those who ask there."""


def address(host: str, port: int) -> str:
    """Return the URL; an IPv6 address needs brackets in it (RFC 3986 §3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
