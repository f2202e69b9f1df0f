"""What grpcio sees of each failure: HOST PORT AUTHORITY TEXT...

The texts are what grpc_failures.rs, which is the server, is asked for. Prints `KIND TEXT: CODE` for each call. With
`--together` among the texts all calls are made at once.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from echo import SERVICE, Reply, Request

host, port, authority, *texts = sys.argv[1:]
options = [
    ("grpc.default_authority", authority),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
coding = {"request_serializer": Request.encode, "response_deserializer": Reply.decode}


def call(asked):
    kind, text = asked
    limit = 1 if text.startswith("silent") else 30
    # One that fails to connect waits before it tries again: each call has a channel of its own.
    with grpc.insecure_channel(f"ipv4:{host}:{port}", options) as channel:
        try:
            if kind == "unary":
                channel.unary_unary(f"/{SERVICE}/Unary", **coding)(Request(text), timeout=limit)
            else:
                list(channel.unary_stream(f"/{SERVICE}/ServerStream", **coding)(Request(text), timeout=limit))
            return "OK"
        except grpc.RpcError as error:
            return error.code().name


together = "--together" in texts
asked = [(kind, text) for text in texts if text != "--together" for kind in ["unary", "stream"]]
with ThreadPoolExecutor(len(asked) if together else 1) as pool:
    for (kind, text), code in zip(asked, pool.map(call, asked)):
        print(f"{kind} {text}: {code}", flush=True)
