# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile and dead clients, and a dead engine, against the HTTP server of ``longshort serve`` in its own process."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest

from longshort_verl.serving.config import read_serve
from tests.faults.scripted_server import KEY, processes

pytestmark = pytest.mark.process

MIB = 1 << 20
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    with processes(tmp_path_factory.mktemp("servers")) as start:
        yield start


@pytest.fixture(scope="module")
def server(start):
    """One server with a key and the time limit of a fast test."""
    return start(client_timeout_s=1.0)


@pytest.fixture(scope="module")
def small(start):
    """A server with few places."""
    return start(max_requests=3, max_connections=20, client_timeout_s=60)


@contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        yield client


def head(method="POST", path=CHAT, *headers, key=KEY):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, "", ""]).encode()


def send_until_closed(client, piece, most):
    """Bytes that the server's machine took before the connection was closed, at most ``most``."""
    sent = 0
    try:
        while sent < most:
            sent += client.send(piece)
    except OSError:
        return sent
    return sent


def received(client):
    """Everything until the server closes."""
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def ask(server, content="1+1", **more):
    body = {"model": "pair", "messages": [{"role": "user", "content": content}], **more}
    return httpx.post(f"{server.url}{CHAT}", json=body, headers=AUTHORIZED, timeout=30)


def assert_answers(server):
    reply = ask(server)
    assert reply.json()["choices"][0]["message"]["content"] == "it is 1+1"


# --- bytes ----------------------------------------------------------------------------------------------------------

# What the kernel's buffers of both ends of a loopback connection may hold.
BUFFERS = 16 * MIB


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET /health HTTP/1.1\r\nX: ", b"x" * 65536),
        (b"GET /health HTTP/1.1\r\n", b"X: y\r\n" * 10_000),
        (b"GET /health HTTP/1.1\r\nX: y\r\n", b" folded\r\n" * 5_000),
        (b"GET /", b"x" * 65536),
        (b"", b"x" * 65536),
        (head("POST", CHAT, "Transfer-Encoding: chunked") + b"5;", b"x" * 65536),
        (head("POST", CHAT, "Transfer-Encoding: chunked") + b"0\r\n", b"X: y\r\n" * 10_000),
    ],
    ids=["one header", "many headers", "folded header", "address", "method", "chunk extension", "trailers"],
)
def test_an_endless_head_is_not_kept(server, beginning, piece):
    before = server.num_bytes()
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(connected(server))
            client.sendall(beginning)
            assert send_until_closed(client, piece, 150 * MIB) < BUFFERS  # 600 MB were taken in all
        assert server.num_bytes() - before < 8 * MIB
    assert_answers(server)


@pytest.mark.parametrize(
    ("headers", "status"),
    [(97 * ["x: y"], 200), (98 * ["x: y"], 431), (["x: " + 16_000 * "y"], 200), (["x: " + 16_384 * "y"], 431)],
)
def test_number_and_bytes_of_headers(server, headers, status):
    with connected(server) as client:
        # With Host and Authorization, 97 are the 100 that are allowed.
        client.sendall(head("GET", "/v1/models", *headers, "Connection: close"))
        assert received(client).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("POST", CHAT, "Content-Length: 20000", key=""), 401),
        (head("POST", CHAT, "Content-Length: 20000", key="wrong"), 401),
        (head("POST", "/v1/unknown", "Content-Length: 20000", key=""), 401),
        (head("POST", CHAT, "Transfer-Encoding: chunked", key=""), 401),
        (head("POST", CHAT, "Content-Length: 20001"), 413),
        (head("POST", CHAT, "Content-Length: 99999999999999999999"), 413),
        (head("POST", "/v1/unknown", "Content-Length: 20000"), 404),
        (head("PUT", CHAT, "Content-Length: 20000"), 405),
        (head("POST", CHAT, "Content-Length: 20000", "Expect: 100-continue", key=""), 401),
    ],
)
def test_a_refused_body_is_not_awaited(server, request_head, status):
    with connected(server) as client:
        client.sendall(request_head)  # no byte of the body
        reply = received(client)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in reply.lower()


@pytest.mark.parametrize(("key", "status"), [("", 401), (KEY, 413)])
def test_a_refused_body_is_not_read_to_its_end(server, key, status):
    before = server.num_bytes()
    with connected(server) as client:
        client.sendall(head("POST", CHAT, "Transfer-Encoding: chunked", key=key))
        assert send_until_closed(client, b"10000\r\n" + b"x" * 65536 + b"\r\n", 150 * MIB) < BUFFERS
    assert server.num_bytes() - before < 8 * MIB
    large = httpx.post(f"{server.url}{CHAT}", content=b"x" * MIB, headers={"authorization": f"Bearer {key or 'none'}"})
    assert large.status_code == status, "an honest client reads the refusal"


def test_open_requests_are_limited_before_their_bodies(small):
    server = small
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(3)]
        for client in clients:
            client.sendall(head("POST", CHAT, "Content-Length: 20000") + b"{")
        server.until(lambda: httpx.post(f"{server.url}{CHAT}", headers=AUTHORIZED).status_code == 429)
        reply = ask(server)
        assert reply.json()["error"]["message"] == "3 requests are open; this server allows 3; retry"
        assert httpx.get(f"{server.url}/health").status_code == 200
    server.until(lambda: ask(server).status_code == 200)


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTT",
        head("POST", CHAT, "Content-Length: 100"),
        head("POST", CHAT, "Content-Length: 100") + b'{"model": ',
        head("POST", CHAT, "Transfer-Encoding: chunked") + b"5\r\n{",
        head("GET", "/health") + b"GET /hea",
    ],
    ids=["nothing", "half a head", "no body", "half a body", "half a chunk", "half a second request"],
)
@pytest.mark.parametrize("trickle", [False, True])
def test_a_client_that_does_not_finish_is_closed(server, sent, trickle):
    with connected(server) as client:
        client.sendall(sent)
        begin = time.monotonic()
        if trickle:
            while time.monotonic() < begin + 5:
                try:
                    client.send(b"x")
                    time.sleep(0.1)
                except ConnectionError:
                    break
        received(client)
    assert time.monotonic() - begin < 4
    assert_answers(server)


def test_an_idle_connection_is_closed(server):
    with connected(server) as client:
        client.sendall(head("GET", "/health"))
        begin = time.monotonic()
        received(client)
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_dialogue_is_not_closed(server, stream):
    begin = time.monotonic()
    reply = ask(server, "hold", stream=stream)
    assert "it is hold" in reply.text
    assert time.monotonic() - begin > 3, "three times the limit of the client"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_does_not_read_is_closed(server, stream):
    server.until(lambda: server.num_connections() == 0)
    body = json.dumps({"model": "pair", "messages": [{"role": "user", "content": "big"}], "stream": stream}).encode()
    with connected(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head("POST", CHAT, f"Content-Length: {len(body)}", "Content-Type: application/json") + body)
        server.until(lambda: server.num_connections() == 1)
        server.until(lambda: server.num_connections() == 0, seconds=10)
    assert_answers(server)


# --- connections ----------------------------------------------------------------------------------------------------


def test_a_thousand_half_open_connections(start):
    # 256 open files are what a cautious machine gives to a process at first.
    server = start(shell="ulimit -Sn 256", client_timeout_s=6.0)
    assert_answers(server)
    before = server.num_bytes()
    with ExitStack() as stack:
        for number in range(1_000):
            client = stack.enter_context(connected(server))
            client.sendall((b"", b"GET /health HTTP/1.1\r\nX: " + b"y" * 4_000, head(key="")[:-2])[number % 3])
        server.until(lambda: server.num_connections() == 1_000, seconds=5)
        begin = time.monotonic()
        assert_answers(server)
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert time.monotonic() - begin < 5
        grown = server.num_bytes() - before
        assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB"
        server.until(lambda: server.num_connections() == 0, seconds=20)
    assert_answers(server)


def test_connections_are_limited(small):
    server = small
    server.until(lambda: server.num_connections() == 0)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(20)]
        server.until(lambda: server.num_connections() == 20)
        with connected(server) as further:
            assert received(further) == b""
        clients.pop().close()
        server.until(lambda: server.num_connections() == 19)
        assert_answers(server)


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", CHAT, "/v1/models", "/v1/models/pair", "/metrics", "/docs", "/openapi.json", "/redoc", "/unknown"),
        *("/health/", "/health/../metrics", "/health%2f..%2fmetrics", "//health", "/HEALTH", "/health;/metrics"),
    ],
)
def test_every_route_but_health_needs_the_key(server, method, path):
    with connected(server) as client:
        client.sendall(head(method, path, "Connection: close", key=""))
        assert received(client).startswith(b"HTTP/1.1 401 ")


def test_health_needs_no_key(server):
    assert httpx.get(f"{server.url}/health").json() == {"long": "ok", "short": "ok"}
    assert httpx.get(f"{server.url}/metrics", headers=AUTHORIZED).status_code == 200


def test_an_upgrade_needs_the_key(server):
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    with connected(server) as client:
        client.sendall(head("GET", "/metrics", *upgrade, key=""))
        assert received(client).startswith(b"HTTP/1.1 401 ")


def test_loopback_unless_told_otherwise(server):
    config, _ = read_serve(None, ["long.path=a", "short.path=b"])
    assert config.server.host == "127.0.0.1"
    listening = [one for one in psutil.Process(server.running.pid).net_connections() if one.status == "LISTEN"]
    assert [one.laddr.ip for one in listening] == ["127.0.0.1"]


# --- secrets, and a dead engine -------------------------------------------------------------------------------------

PRIVATE = "my private question"


def test_no_secret_in_replies_or_logs(server):
    texts = []
    with httpx.Client(headers=AUTHORIZED, base_url=server.url) as client:
        for body in (
            {"model": "pair", "temperature": PRIVATE, "messages": []},
            {"model": "pair", "messages": [{"role": PRIVATE, "content": PRIVATE}]},
            {"model": "pair", "messages": [{"role": "user", "content": {"text": PRIVATE}}]},
            {"model": "pair", "messages": [{"role": "user", "content": PRIVATE}], "tools": [PRIVATE]},
        ):
            texts.append(client.post(CHAT, json=body).text)
        texts.append(client.post(CHAT, content=f'{{"model": "{PRIVATE}').text)
        texts += [client.get(path).text for path in ("/v1/models", "/metrics", "/health", "/unknown")]
        texts.append(client.get("/metrics", headers={"authorization": "Bearer sk-of-another-server"}).text)
    with connected(server) as client:
        client.sendall(head("GET", "/v1/models", f"X: {PRIVATE}\x00"))
        texts.append(received(client).decode())
    assert_no_secret(*texts, server.log.read_text())


def assert_no_secret(*texts):
    for text in texts:
        for secret in (KEY, "sk-of-another-server", PRIVATE, "Traceback"):
            assert secret not in text


def test_a_dead_engine_ends_the_server_with_its_cause(start):
    server = start()
    assert_answers(server)
    reply = ask(server, f"{PRIVATE}: die")
    assert reply.status_code == 502
    assert server.running.wait(timeout=20) == 1
    log = server.log.read_text()
    cause = "the engine of the long role died: vLLM failed: EngineCore was killed by signal 9"
    assert log.splitlines()[-1] == f"Error: {cause}"
    assert_no_secret(reply.text, log)
    with pytest.raises(httpx.ConnectError):
        ask(server)
