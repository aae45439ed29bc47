"""What tests expect of answers: exact values, and refusals of one form."""

import json
from decimal import Decimal
from typing import Any

import httpx2


def exact(text: str | bytes) -> Any:
    """Decode JSON with exact numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Return a refusal's body after checking that it is a problem document of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    return body
