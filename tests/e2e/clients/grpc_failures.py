"""What grpcio sees of each failure: HOST PORT AUTHORITY TEXT...

The texts are what grpc_failures.rs, which is the server, is asked for. Prints `KIND TEXT: CODE` for each call.
"""

import sys

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
for text in texts:
    # One that fails to connect waits before it tries again: each call has a channel of its own.
    for kind in ["unary", "stream"]:
        with grpc.insecure_channel(f"ipv4:{host}:{port}", options) as channel:
            limit = 1 if text.startswith("silent") else 20
            try:
                if kind == "unary":
                    channel.unary_unary(f"/{SERVICE}/Unary", **coding)(Request(text), timeout=limit)
                else:
                    list(channel.unary_stream(f"/{SERVICE}/ServerStream", **coding)(Request(text), timeout=limit))
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
                if "--details" in sys.argv:
                    print(error.details(), file=sys.stderr)
            print(f"{kind} {text}: {code}", flush=True)
