"""Store a document, read it back and delete it, over the Service: `helm test` runs it in a pod."""  # noqa: INP001

import json
import os
import sys
import time
import urllib.error
import urllib.request
from email.message import Message

Answer = tuple[int, Message, bytes]

URL = os.environ["URL"]
TOKEN = os.environ.get("AUTH_TOKEN", "")
SECONDS = 30
"""How long the policy that lets this pod out may take to be in force."""


def call(method: str, path: str, body: bytes | None = None) -> Answer:
    """Return the status, the headers and the body of an answer."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(URL + path, body, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def wait() -> Answer:
    """Return what the service answers, once it can be reached."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return call("GET", "/health/live")
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"{URL} cannot be reached: {error}")
            time.sleep(0.5)


def expect(status: int, method: str, path: str, body: bytes | None = None) -> Answer:
    """Return the answer, which must have this status."""
    answer = call(method, path, body)
    sys.stdout.write(f"{method} {path}: {answer[0]}\n")
    if answer[0] != status:
        sys.exit(f"{status} was expected: {answer[2].decode(errors='replace')}")
    return answer


wait()
document = {"made by": "helm test", "number": 1}
location = expect(201, "POST", "/data", json.dumps(document).encode())[1]["Location"]
stored = json.loads(expect(200, "GET", location)[2])["data"]
expect(204, "DELETE", location)
expect(404, "GET", location)
if stored != document:
    sys.exit(f"{document} was stored, {stored} is what came back")
