"""The service `Echo` by grpcio. It does what the texts `never`, `remaining` and `large trailers` ask.
HOST PORT [CALLS AT ONCE]"""

import sys
import threading
from concurrent import futures

import grpc

from echo import SERVICE, Reply, Request

CODES = {code.value[0]: code for code in grpc.StatusCode}
LARGE = 30_000
under_way = 0
lock = threading.Lock()


def count(context):
    """Calls that have begun and not ended, for whatever reason."""

    def change(by):
        global under_way
        with lock:
            under_way += by

    change(1)
    context.add_callback(lambda: change(-1))


def end(request, context):
    if request.status:
        context.set_trailing_metadata([("x-demo-detail", "ordered"), ("x-demo-bin", b"\x00\xff")])
        context.abort(CODES[request.status], "as ordered")


def unary(request, context):
    if request.text == "under way":
        return Reply(number=under_way)
    count(context)
    if request.text == "never":
        while context.is_active():
            threading.Event().wait(0.05)
    if request.text == "remaining":
        return Reply(number=int(1000 * (context.time_remaining() or 0)))
    if request.text == "large trailers":
        context.set_trailing_metadata([("x-large", "x" * (request.count or LARGE))])
    end(request, context)
    return Reply(text=request.text)


def server_stream(request, context):
    count(context)
    for number in range(request.count):
        yield Reply(text=request.text, number=number)
    while request.text == "never" and context.is_active():
        threading.Event().wait(0.05)
    end(request, context)


def client_stream(requests, context):
    texts = []
    for request in requests:
        end(request, context)
        texts.append(request.text)
    return Reply(text=",".join(texts), number=len(texts))


def bidirectional(requests, context):
    for number, request in enumerate(requests):
        end(request, context)
        yield Reply(text=request.text, number=number)


coding = {"request_deserializer": Request.decode, "response_serializer": Reply.encode}
handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary, **coding),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream, **coding),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream, **coding),
    "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional, **coding),
}
host, port, *limit = sys.argv[1:]
server = grpc.server(
    futures.ThreadPoolExecutor(16),
    options=[("grpc.max_receive_message_length", 2**25)],
    maximum_concurrent_rpcs=int(limit[0]) if limit else None,
)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
assert server.add_insecure_port(f"{host}:{port}")
server.start()
server.wait_for_termination()
