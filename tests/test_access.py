"""Access: who is let in, before anything of the request but its head is read."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from answers import problem
from conftest import Serve
from servers import free_port
from service import PATIENCE, Running

TOKEN = "open-sesame-1"
GUARDED = [
    ("GET", "/data"),
    ("POST", "/data"),
    ("PUT", "/data/a"),
    ("GET", "/v1"),
    ("GET", "/v1/collections"),
    ("POST", "/v1/data/x/_import"),
    ("GET", "/v1/data/x/_export"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/nowhere"),
    ("BREW", "/data"),
]
PROBES = ("/health", "/health/live", "/health/ready", "/health/startup")


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the token."""
    return tmp_path_factory.mktemp("token") / "token"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, token_file: Path) -> Iterator[Running]:
    """A service on all addresses that asks for the token of a file."""
    folder = tmp_path_factory.mktemp("service")
    for parent in (folder, *folder.parents[:3]):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    token_file.write_text(f"{TOKEN}\n")
    running = Running(
        folder,
        credenza_home=folder / "home",
        host="0.0.0.0",
        auth_token_file=token_file,
        auth_token="another-token",
        metrics_port=free_port(),
    )
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(autouse=True)
def _token(token_file: Path) -> Iterator[None]:
    """Leave the token as it was."""
    yield
    token_file.write_text(f"{TOKEN}\n")


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def refusal(answer: httpx2.Response, status: int, code: str) -> httpx2.Response:
    """Return an answer after checking that it is a problem of this kind with the request's id."""
    problem(answer, status, code)
    return answer


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_the_token(guarded: Running, method: str, path: str) -> None:
    """Without a token, with another, and with another scheme everything is 401 and says how."""
    wrong: tuple[dict[str, str], ...] = (
        {},
        bearer("wrong"),
        bearer("another-token"),
        {"Authorization": TOKEN},
    )
    with guarded.client() as client:
        for headers in (*wrong, {"Authorization": f"Basic {TOKEN}"}, bearer(TOKEN[:-1])):
            answer = refusal(client.request(method, path, headers=headers), 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token(guarded: Running) -> None:
    """The file's token opens, whatever the scheme's case; foreign pages have no token to send."""
    with guarded.client(headers={"Host": "example.org", "Sec-Fetch-Site": "cross-site"}) as client:
        assert client.post("/data", json=1, headers=bearer(TOKEN)).status_code == 201
        lower = {"Authorization": f"bearer {TOKEN}"}
        assert client.get("/data", headers=lower).status_code == 200
        assert client.get("/metrics", headers=lower).status_code == 200


def test_probes_and_the_metrics_port_ask_for_nothing(guarded: Running) -> None:
    """/health* and METRICS_PORT are for those who have no token."""
    with guarded.client() as client:
        for path in PROBES:
            assert client.get(path).status_code == 200
        refusal(client.get("/healthy"), 404, "not-found")
    port = guarded.settings["metrics_port"]
    assert "credenza_build_info" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_token_that_changes(guarded: Running, token_file: Path) -> None:
    """The file is read again: a new token opens at once and the old one no longer does."""
    with guarded.client() as client:
        token_file.write_text("rotated")
        assert client.get("/data", headers=bearer("rotated")).status_code == 200
        refusal(client.get("/data", headers=bearer(TOKEN)), 401, "unauthenticated")


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer"}])
def test_a_file_that_is_just_empty(
    guarded: Running, token_file: Path, header: dict[str, str]
) -> None:
    """While a file is written anew it may be empty; then nobody is let in with an empty token."""
    with guarded.client() as client:
        token_file.write_text("")
        refusal(client.get("/data", headers=header), 401, "unauthenticated")


def test_a_file_that_is_gone(guarded: Running, token_file: Path) -> None:
    """A token that cannot be read is the service's fault, not the client's; probes go on."""
    with guarded.client() as client:
        token_file.unlink()
        refusal(client.get("/data", headers=bearer(TOKEN)), 503, "unavailable")
        assert client.get("/health/live").status_code == 200


def test_the_refusal_comes_before_the_body(guarded: Running) -> None:
    """A head that announces a large body is answered at once, though no byte of it was sent."""
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection(("127.0.0.1", int(port)), PATIENCE) as connection:
        connection.sendall(
            f"POST /data HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            "Content-Length: 1000000\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_refused_write_writes_nothing(guarded: Running, collection: str) -> None:
    """What was refused for want of a token has not been stored."""
    with guarded.client() as client:
        client.put(f"/v1/data/{collection}/a", json=1)
        answer = client.get(f"/v1/data/{collection}/a", headers=bearer(TOKEN))
        refusal(answer, 404, "not-found")


def test_the_document_names_the_scheme(guarded: Running) -> None:
    """The OpenAPI document says that a bearer token is asked for, and that probes need none."""
    with guarded.client(headers=bearer(TOKEN)) as client:
        document = client.get("/openapi.json").json()
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/health"]["get"]["security"] == []


def test_an_answer_that_needed_a_token_is_private(guarded: Running, collection: str) -> None:
    """A shared cache must not keep what not everyone may read."""
    with guarded.client(headers=bearer(TOKEN)) as client:
        client.put(f"/v1/collections/{collection}", json={"http_max_age": 60})
        client.put(f"/v1/data/{collection}/a", json=1)
        answer = client.get(f"/v1/data/{collection}/a")
        assert answer.headers["cache-control"] == "private, max-age=60"


def test_loopback_is_open(client: httpx2.Client) -> None:
    """On loopback no token is asked for, by each of the machine's own names."""
    port = client.base_url.port
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", f"localhost:{port}"):
        assert client.get("/data", headers={"Host": name}).status_code == 200, name
    assert "security" not in client.get("/openapi.json").json()


def test_a_foreign_page_may_not_write(client: httpx2.Client) -> None:
    """A page of another site that makes its reader's browser write here is 403; links may lead."""
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for method, path in (("POST", "/data"), ("PUT", "/data/a"), ("DELETE", "/data/a")):
        answer = client.request(method, path, json=1, headers=foreign)
        refusal(answer, 403, "forbidden")
        assert "Sec-Fetch-Site: cross-site" in answer.json()["detail"]
    assert client.get("/data", headers=foreign).status_code == 200
    own = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/data", json=1, headers=own).status_code == 201


def test_a_foreign_name_may_not_read(client: httpx2.Client) -> None:
    """A page whose name is made to lead to this machine is 403, for reads too; probes answer."""
    for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil"):
        for path in ("/data", "/metrics", "/docs", "/openapi.json", "/nowhere"):
            answer = refusal(client.get(path, headers={"Host": name}), 403, "forbidden")
            assert f"'{name}' in Host" in answer.json()["detail"]
        assert client.get("/health", headers={"Host": name}).status_code == 200


def test_open_by_word(serve: Serve) -> None:
    """AUTH=off serves any address without a token, by any name, even where there is a token."""
    running = serve(host="0.0.0.0", auth="off", auth_token=TOKEN)
    with running.client(headers={"Host": "data.example"}) as client:
        assert client.post("/data", json=1).status_code == 201
