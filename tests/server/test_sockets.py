"""What only a real socket shows: bytes that are almost HTTP, and clients that vanish."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llm_engine.server.strict_http import ambiguity
from tests.server.running import simulated

BODY = b'{"model":"fake","prompt":"hi","max_tokens":1}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


def with_length(extra: bytes = b"", body: bytes = BODY) -> bytes:
    return POST + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(chunks: bytes, extra: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    return POST + extra + b"\r\n" + chunks


ONE_CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with the real scheduler and a simulated model that takes 5 ms a step."""
    with simulated(step_s=0.005) as port:
        yield port


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, then return all that comes until the server closes, or is silent for long."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                answer += piece
    return answer


def metric(port: int, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return float(next(x for x in text.splitlines() if x.startswith(name + "{")).split()[-1])


REFUSED = [
    pytest.param(with_length(b"Transfer-Encoding: chunked\r\n"), id="length and chunks"),
    pytest.param(
        chunked(ONE_CHUNK, b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        id="a short length and chunks",
    ),
    pytest.param(with_length(b"Content-Length: 3\r\n"), id="two lengths that differ"),
    pytest.param(with_length(b"Content-Length: %d\r\n" % len(BODY)), id="two lengths alike"),
    pytest.param(POST + b"Content-Length: 5, 6\r\n\r\n" + BODY, id="a list of lengths"),
    pytest.param(POST + b"Content-Length: -1\r\n\r\n", id="a negative length"),
    pytest.param(POST + b"Content-Length: +45\r\n\r\n" + BODY, id="a length with a sign"),
    pytest.param(POST + b"Content-Length: 0x2d\r\n\r\n" + BODY, id="a hexadecimal length"),
    pytest.param(POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", id="a huge length"),
    pytest.param(chunked(ONE_CHUNK, b"Transfer-Encoding: xchunked\r\n"), id="unknown encoding"),
    pytest.param(chunked(ONE_CHUNK, b"Transfer-Encoding: gzip, chunked\r\n"), id="two encodings"),
    pytest.param(
        chunked(ONE_CHUNK, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        id="encoding twice",
    ),
    pytest.param(chunked(ONE_CHUNK, b"Transfer-Encoding : chunked\r\n"), id="space before colon"),
    pytest.param(chunked(ONE_CHUNK, b"Transfer-Encoding: \x0bchunked\r\n"), id="vertical tab"),
    pytest.param(chunked(ONE_CHUNK, b"X: y\r\n Transfer-Encoding: chunked\r\n"), id="folded line"),
    pytest.param(chunked(ONE_CHUNK, b"X: y\nTransfer-Encoding: chunked\r\n"), id="bare line feed"),
    pytest.param(b"GET /v1/models HTTP/1.1\nHost: x\n\n", id="only line feeds"),
    pytest.param(chunked(b"-1\r\n" + BODY), id="a negative chunk"),
    pytest.param(chunked(b"0x2d\r\n" + BODY + b"\r\n0\r\n\r\n"), id="a hexadecimal prefix"),
    pytest.param(chunked(b"g\r\n" + BODY), id="a chunk that is no number"),
    pytest.param(chunked(b"5\r\n" + BODY + b"\r\n0\r\n\r\n"), id="a chunk longer than it says"),
    pytest.param(chunked(b"f" * 30 + b"\r\n"), id="a chunk of endless size"),
    pytest.param(POST.replace(b"Host: x\r\n", b"") + b"\r\n", id="no host"),
    pytest.param(POST + b"Host: y\r\n\r\n", id="two hosts"),
    pytest.param(POST.replace(b"Host: x", b"Host: x\x00y") + b"\r\n", id="NUL in a header"),
    pytest.param(POST + b"X\x01: y\r\n\r\n", id="control character in a name"),
    pytest.param(POST + b": y\r\n\r\n", id="no name"),
    pytest.param(POST + b"X y\r\n\r\n", id="no colon"),
    pytest.param(b"GET  /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", id="two spaces"),
    pytest.param(b"GET /v1/models\r\n\r\n", id="HTTP/0.9"),
    pytest.param(b"GET /v1/models HTTP/3.0\r\nHost: x\r\n\r\n", id="HTTP/3.0"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 prior knowledge"),
    pytest.param(b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n", id="NUL in the method"),
    pytest.param(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", id="a path beyond ASCII"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" + b"x" * 600 + b"\r\n\r\n", id="TLS"),
    pytest.param(POST + b"X: " + b"y" * 70_000 + b"\r\n\r\n", id="a header of 70 kB"),
    pytest.param(POST + b"X: y\r\n" * 20_000 + b"\r\n", id="20,000 headers"),
    pytest.param(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a path of 70 kB"),
]


@pytest.mark.parametrize("request_bytes", REFUSED)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed(
    port: int, request_bytes: bytes
) -> None:
    answer = exchange(port, request_bytes + SMUGGLED)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert answer.count(b"HTTP/1.1 ") <= 1, "what followed was answered too"
    if answer.startswith(b"HTTP/1.1 400"):
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) >= {"message", "code"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(with_length(b"Connection: close\r\n"), 200, id="an ordinary request"),
        pytest.param(
            chunked(ONE_CHUNK, b"Transfer-Encoding: chunked\r\nConnection: close\r\n"),
            200,
            id="in chunks",
        ),
        pytest.param(
            with_length(b"Expect: 100-continue\r\nConnection: close\r\n"),
            200,
            id="asks to continue",
        ),
        pytest.param(with_length(b"Connection: close, host\r\n"), 200, id="names a header of ours"),
        pytest.param(
            b"GET //v1/../admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            404,
            id="a path that climbs",
        ),
        pytest.param(
            b"GET /v1/%2e%2e/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            404,
            id="an encoded path that climbs",
        ),
        pytest.param(
            b"GET /v1/models HTTP/1.1\r\nHost: x/?#@y\r\nConnection: close\r\n\r\n",
            200,
            id="a strange host changes nothing",
        ),
        pytest.param(
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: close, upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
            200,
            id="no upgrade to WebSocket",
        ),
        pytest.param(b"GET /v1/models HTTP/1.0\r\n\r\n", 200, id="HTTP/1.0"),
        pytest.param(
            b"TRACE /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, id="TRACE"
        ),
        pytest.param(
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404, id="CONNECT"
        ),
    ],
)
def test_other_requests_have_one_answer(port: int, request_bytes: bytes, status: int) -> None:
    answer = exchange(port, request_bytes).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert int(answer.split()[1]) == status, answer


@pytest.mark.parametrize("cut", [10, 40, 60, 75])
def test_a_head_that_comes_in_pieces_is_checked_as_a_whole(cut: int) -> None:
    head = POST + b"X: y\nZ: z\r\n"
    assert ambiguity(head[:cut]) is None
    assert ambiguity(head) is not None


def kill_at(port: int, byte: int) -> int:
    """Reset the connection of a long stream after so many bytes; return the bytes that came."""
    body = b'{"model":"fake","prompt":"hi","max_tokens":900,"ignore_eos":true,"stream":true}'
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(with_length(body=body))
        got = 0
        while got < byte:
            piece = client.recv(byte - got)
            assert piece, "the server closed first"
            got += len(piece)
        reset = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    return got


def test_streams_killed_at_any_byte_side_by_side_leave_nothing_behind(port: int) -> None:
    """Head and first events: every state that a stream can be in. Each would run for 4.5 s."""
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda byte: kill_at(port, byte), range(600))) == list(range(600))
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
        for _ in range(600):
            if metric(port, name) == 0:
                break
            time.sleep(0.05)
        assert metric(port, name) == 0, name
    assert exchange(port, with_length(b"Connection: close\r\n")).startswith(b"HTTP/1.1 200")
