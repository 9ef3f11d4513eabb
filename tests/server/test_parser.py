"""The parser's bounds: on a turn of the event loop, on headers, and on chunked bodies."""

from __future__ import annotations

from typing import Any

import h11
import pytest

from kronos_api.server.parser import (
    EVENTS_PER_TURN,
    FREE_CHUNKS,
    MAX_CHUNK_LINE,
    MAX_HEADER_LINES,
    MAX_HEADERS,
    MIN_CHUNK,
    Parser,
    Refused,
)

HEADERS = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEADERS + b"Transfer-Encoding: chunked\r\n\r\n"
LIMIT = 10_000_000


def parsed(sent: bytes, parser: Parser | None = None) -> list[Any]:
    """All events of `sent`, however many turns of a loop they would take."""
    parser = parser or Parser(LIMIT)
    parser.receive_data(sent)
    events: list[Any] = []
    while True:
        parser.events_left, parser.wants_body = EVENTS_PER_TURN, True
        event = parser.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return events
        events.append(event)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def refusal(sent: bytes) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        parsed(sent)
    return caught.value.error.status, caught.value.error.message


def test_chunked_body_is_not_parsed_until_the_application_reads_it() -> None:
    parser = Parser(LIMIT)
    parser.receive_data(CHUNKED + chunk(b"ab") + b"no chunk")
    assert isinstance(parser.next_event(), h11.Request)
    assert parser.next_event() is h11.NEED_DATA
    parser.wants_body = True
    assert parser.next_event().data == b"ab"


def test_events_of_one_turn_are_bounded() -> None:
    parser = Parser(LIMIT)
    parser.receive_data(CHUNKED + chunk(b" ") * 500)
    assert isinstance(parser.next_event(), h11.Request)
    parser.wants_body = True
    for _ in range(EVENTS_PER_TURN - 1):
        assert isinstance(parser.next_event(), h11.Data)
    assert parser.next_event() is h11.NEED_DATA
    parser.events_left = 1
    assert isinstance(parser.next_event(), h11.Data)


def test_tiny_chunks_are_refused_after_the_free_ones() -> None:
    parser = Parser(LIMIT)
    assert len(parsed(CHUNKED + chunk(b" ") * FREE_CHUNKS, parser)) == 1 + FREE_CHUNKS
    with pytest.raises(Refused, match="1 bytes on average"):
        parsed(chunk(b" "), parser)


def test_tiny_chunks_up_to_the_limit_make_a_body() -> None:
    events = parsed(CHUNKED + chunk(b" ") * FREE_CHUNKS + b"0\r\n\r\n")
    assert isinstance(events[-1], h11.EndOfMessage)


def test_chunks_of_enough_bytes_may_be_many() -> None:
    count = 3 * FREE_CHUNKS
    events = parsed(CHUNKED + chunk(bytes(MIN_CHUNK)) * count + b"0\r\n\r\n")
    assert sum(len(event.data) for event in events[1:-1]) == MIN_CHUNK * count


def test_chunks_are_counted_for_each_body() -> None:
    parser = Parser(LIMIT)
    for _ in range(2):
        parsed(CHUNKED + chunk(b" ") * FREE_CHUNKS + b"0\r\n\r\n", parser)
        parser.send(h11.Response(status_code=204, headers=[]))
        parser.send(h11.EndOfMessage())
        parser.start_next_cycle()


@pytest.mark.parametrize(
    "size", [b"f" * 16, b"%x" % (LIMIT + 1), b"0" * 10 + b"%x" % (LIMIT + 1), b"F" * 20 + b";ext"]
)
def test_chunk_larger_than_any_body_is_refused_before_it_comes(size: bytes) -> None:
    status, message = refusal(CHUNKED + size + b"\r\n")
    assert status == 413
    assert f"{LIMIT} bytes" in message


def test_chunks_that_are_too_large_together_are_refused_before_the_last_comes() -> None:
    assert refusal(CHUNKED + chunk(bytes(LIMIT)) + b"1\r\n")[0] == 413
    assert len(parsed(CHUNKED + chunk(bytes(LIMIT)) + b"0\r\n\r\n")) == 3


@pytest.mark.parametrize("end", [b"", b"\r\nab\r\n"])
def test_long_chunk_extension_is_refused(end: bytes) -> None:
    status, message = refusal(CHUNKED + b"2;" + b"x" * MAX_CHUNK_LINE + end)
    assert (status, str(MAX_CHUNK_LINE) in message) == (400, True)


@pytest.mark.parametrize("line", [b"a:\n", b"a:\r\n", b"a: b\r\n", b" b\r\n"])
@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_too_many_header_lines_are_refused_unparsed(line: bytes, end: bytes) -> None:
    status, message = refusal(HEADERS + b"a: b\r\n" + line * 16_000 + end)
    assert status == 431
    assert str(MAX_HEADERS if len(line) * 16_000 > MAX_HEADERS and not end else "") in message


def test_headers_up_to_the_limit_of_lines_are_parsed() -> None:
    (request, _) = parsed(HEADERS + b"a:\r\n" * (MAX_HEADER_LINES - 1) + b"\r\n")
    assert len(request.headers) == MAX_HEADER_LINES
    status, message = refusal(HEADERS + b"a:\r\n" * MAX_HEADER_LINES + b"\r\n")
    assert (status, str(MAX_HEADER_LINES) in message) == (431, True)


def test_headers_are_bounded_in_bytes() -> None:
    room = MAX_HEADERS - len(HEADERS + b"a: \r\n\r\n")
    assert len(parsed(HEADERS + b"a: " + b"x" * room + b"\r\n\r\n")) == 2
    assert refusal(HEADERS + b"a: " + b"x" * (room + 1) + b"\r\n\r\n")[0] == 431


def test_trailers_are_bounded_like_headers() -> None:
    whole = CHUNKED + chunk(b"ab") + b"0\r\n"
    assert isinstance(parsed(whole + b"a: b\r\n\r\n")[-1], h11.EndOfMessage)
    assert refusal(whole + b"a:\n" * 5000 + b"\n")[0] == 431
    assert refusal(whole + b"a: " + b"x" * MAX_HEADERS + b"\r\n\r\n")[0] == 431


@pytest.mark.parametrize("cut", [0, 1, 2, 5])
def test_one_empty_line_before_a_request_is_ignored(cut: int) -> None:
    sent = b"\r\n" + HEADERS + b"\r\n"
    parser = Parser(LIMIT)
    events = (parsed(sent[:cut], parser) if cut else []) + parsed(sent[cut:], parser)
    assert [type(event) for event in events] == [h11.Request, h11.EndOfMessage]
    with pytest.raises(h11.RemoteProtocolError):
        parsed(b"\r\n" * 2 + HEADERS + b"\r\n")


def test_one_empty_line_is_ignored_before_every_request() -> None:
    parser = Parser(LIMIT)
    for _ in range(3):
        assert len(parsed(b"\r\n" + HEADERS + b"\r\n", parser)) == 2
        parser.send(h11.Response(status_code=204, headers=[]))
        parser.send(h11.EndOfMessage())
        parser.start_next_cycle()


@pytest.mark.parametrize("encoding", ["chunked", "identity", "gzip"])
def test_transfer_encoding_in_http_1_0_is_refused(encoding: str) -> None:
    request = f"POST / HTTP/1.0\r\nTransfer-Encoding: {encoding}\r\n\r\n".encode()
    with pytest.raises(h11.RemoteProtocolError):
        parsed(request + b"0\r\n\r\n")


def test_http_1_0_with_chunks_is_refused_with_a_remedy() -> None:
    request = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, message = refusal(request)
    assert (status, "Content-Length" in message) == (400, True)


def test_two_lengths_are_refused() -> None:
    assert refusal(HEADERS + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")[0] == 400
