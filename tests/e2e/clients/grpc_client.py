"""gRPC by grpcio, to the service `Echo`. HOST PORT AUTHORITY [--full]

With `--full` the server is grpc_server.py, which can do more than the demo's.
"""

import queue
import sys
import time

import grpc

from echo import SERVICE, Reply, Request
from table import CASES, case, run

LIMIT = 20


class Echo:
    def __init__(self, target, *options, authority=None):
        host, port, own = target[:3]
        options = [
            ("grpc.default_authority", authority or own),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", 2**25),
            ("grpc.max_metadata_size", 2**17),
            ("grpc.absolute_max_metadata_size", 2**17),
            ("grpc.use_local_subchannel_pool", 1),
            *options,
        ]
        channel = self.channel = grpc.insecure_channel(f"ipv4:{host}:{port}", options)
        coding = {"request_serializer": Request.encode, "response_deserializer": Reply.decode}
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary", **coding)
        self.server_stream = channel.unary_stream(f"/{SERVICE}/ServerStream", **coding)
        self.client_stream = channel.stream_unary(f"/{SERVICE}/ClientStream", **coding)
        self.bidirectional = channel.stream_stream(f"/{SERVICE}/Bidirectional", **coding)
        self.nothing = channel.unary_unary(f"/{SERVICE}/Nothing", **coding)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


def full(function):
    """A case for grpc_server.py only."""
    return case(function) if "--full" in sys.argv else function


@case
def a_unary_call(target):
    with Echo(target) as echo:
        for text in ["hello", "", "\u4e2d" * 1000, "x" * 3_000_000]:
            assert echo.unary(Request(text), timeout=LIMIT).text == text


@case
def many_calls_at_once_on_one_connection(target):
    with Echo(target) as echo:
        calls = [echo.unary.future(Request(str(n)), timeout=LIMIT) for n in range(300)]
        assert [call.result().text for call in calls] == [str(n) for n in range(300)]


@case
def every_status_arrives_with_its_message_and_its_trailers(target):
    with Echo(target) as echo:
        for status in range(1, 17):
            # Which the mesh tries again, as it may: the answer is the same.
            error = failure(lambda: echo.unary(Request("x", status=status), timeout=LIMIT))
            assert error.code().value[0] == status, error
            assert error.details() == "as ordered", error
            assert ("x-demo-detail", "ordered") in error.trailing_metadata(), error.trailing_metadata()


@case
def a_server_stream_and_its_end(target):
    with Echo(target) as echo:
        replies = echo.server_stream(Request("tick", count=1000), timeout=LIMIT)
        assert [reply.number for reply in replies] == list(range(1000))
        assert replies.code() == grpc.StatusCode.OK
        seen = []
        ordered = echo.server_stream(Request("tick", count=3, status=13), timeout=LIMIT)
        error = failure(lambda: seen.extend(reply.number for reply in ordered))
        assert error.code() == grpc.StatusCode.INTERNAL, error
        assert seen == [0, 1, 2], seen


@case
def an_empty_server_stream(target):
    with Echo(target) as echo:
        assert list(echo.server_stream(Request("tick", count=0), timeout=LIMIT)) == []
        error = failure(lambda: list(echo.server_stream(Request("tick", status=5), timeout=LIMIT)))
        assert error.code() == grpc.StatusCode.NOT_FOUND, error


@case
def a_client_stream(target):
    with Echo(target) as echo:
        texts = [str(n) for n in range(1000)]
        reply = echo.client_stream(map(Request, texts), timeout=LIMIT)
        assert (reply.text, reply.number) == (",".join(texts), 1000)
        assert echo.client_stream(iter(()), timeout=LIMIT).number == 0


@case
def both_directions_message_by_message(target):
    with Echo(target) as echo:
        requests = queue.SimpleQueue()
        replies = echo.bidirectional(iter(requests.get, None), timeout=LIMIT)
        for number in range(100):
            requests.put(Request(f"text {number}"))
            reply = next(replies)
            assert (reply.number, reply.text) == (number, f"text {number}"), reply
        requests.put(None)
        assert list(replies) == []


@case
def a_failure_in_the_middle_of_a_stream_of_requests(target):
    with Echo(target) as echo:
        requests = [Request("a"), Request("b", status=9), Request("c")]
        error = failure(lambda: echo.client_stream(iter(requests), timeout=LIMIT))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error


@case
def a_compressed_message(target):
    if "--full" not in sys.argv:
        return  # The demo's server takes none.
    with Echo(target) as echo:
        text = "x" * 100_000
        reply = echo.unary(Request(text), timeout=LIMIT, compression=grpc.Compression.Gzip)
        assert reply.text == text


@case
def an_unknown_method_is_unimplemented(target):
    with Echo(target) as echo:
        error = failure(lambda: echo.nothing(Request("x"), timeout=LIMIT))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


@case
def a_cancelled_call_does_not_disturb_the_others(target):
    with Echo(target) as echo:
        other = echo.server_stream(Request("tick", count=5_000), timeout=LIMIT)
        assert next(other).number == 0
        for _ in range(20):
            call = echo.server_stream(Request("tick", count=100_000), timeout=LIMIT)
            next(call)
            call.cancel()
        assert sum(1 for _ in other) == 4_999


@full
def the_servers_deadline_is_what_is_left_of_the_callers(target):
    with Echo(target) as echo:
        left = echo.unary(Request("remaining"), timeout=5).number
        # gRPC rounds a deadline up before it sends it.
        assert 0 < left <= 6000, left


@full
def a_deadline_ends_the_call_here_and_there(target):
    with Echo(target) as echo:
        error = failure(lambda: echo.unary(Request("never"), timeout=0.3))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        error = failure(lambda: list(echo.server_stream(Request("never", count=1), timeout=0.3)))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        until = time.monotonic() + LIMIT
        while echo.unary(Request("under way"), timeout=LIMIT).number:
            assert time.monotonic() < until, "the server goes on"


@full
def large_trailers(target):
    with Echo(target) as echo:
        reply, call = echo.unary.with_call(Request("large trailers"), timeout=LIMIT)
        assert reply.text == "large trailers"
        assert len(dict(call.trailing_metadata())["x-large"]) == 30_000


@full
def binary_trailers(target):
    with Echo(target) as echo:
        error = failure(lambda: echo.unary(Request("x", status=10), timeout=LIMIT))
        assert dict(error.trailing_metadata())["x-demo-bin"] == b"\x00\xff", error.trailing_metadata()


def own_error(target, reason):
    """The mesh's own refusal, as gRPC says it: `grpc_client.py HOST PORT AUTHORITY --error REASON`.

    A stranger (`--stranger`) is told the reason alone.
    """
    is_told = str.__eq__ if "--stranger" in sys.argv else lambda said, reason: said.startswith(f"{reason}: ")
    with Echo(target) as echo:
        for call in (
            lambda: echo.unary(Request("x"), timeout=LIMIT),
            lambda: list(echo.server_stream(Request("x", count=3), timeout=LIMIT)),
            lambda: list(echo.bidirectional(iter([Request("x")]), timeout=LIMIT)),
        ):
            error = failure(call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            assert is_told(error.details(), reason), error
            metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
            assert any(name == "selvedge-error" for name, _ in metadata), metadata


if "--error" in sys.argv:
    reason = sys.argv[sys.argv.index("--error") + 1]
    CASES.clear()
    CASES.append(lambda target: own_error(target, reason))
run(sys.argv[1:4])
