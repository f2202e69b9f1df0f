"""WebSockets by `websockets`. HOST PORT AUTHORITY [--by-name]"""

import os
import socket
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from table import case, run


def opened(target, path="/chat?room=1", **options):
    host, port, authority = target
    stream = socket.create_connection((host, int(port)), timeout=20)
    options = {"sock": stream, "proxy": None, "max_size": 2**24, **options}
    websocket = connect(f"ws://{authority}{path}", legacy=True, **options)
    return websocket, websocket.recv(10)


@case
def texts_and_bytes_come_back(target):
    websocket, _ = opened(target)
    for message in ["hello", "", "\u00e4\u4e2d", b"\x00\xff", b"", os.urandom(70_000), os.urandom(4_000_000)]:
        websocket.send(message)
        assert websocket.recv(10) == message
    websocket.close()


@case
def compressed_and_not(target):
    for compression, extension in (("deflate", "permessage-deflate"), (None, None)):
        websocket, _ = opened(target, compression=compression)
        agreed = websocket.response.headers.get("sec-websocket-extensions")
        assert (agreed or "").startswith(extension or ""), agreed
        assert (agreed is None) == (extension is None), agreed
        websocket.send("x" * 1_000_000)
        assert websocket.recv(10) == "x" * 1_000_000
        websocket.close()


@case
def a_subprotocol_is_agreed(target):
    websocket, _ = opened(target, subprotocols=["other", "superchat"])
    assert websocket.subprotocol == "superchat"
    websocket.close()


@case
def fragments_stay_fragments(target):
    websocket, _ = opened(target)
    websocket.send("do: fragments")
    # The last frame may be empty, and say only that it is the last.
    assert [part for part in websocket.recv_streaming() if part] == ["one", "two", "three"]
    websocket.send(["1", "2", "3"])
    assert websocket.recv(10) == "123"
    websocket.close()


@case
def pings_are_answered_by_either_end(target):
    websocket, _ = opened(target)
    assert websocket.ping(b"client").wait(10)
    websocket.send("do: ping")
    assert websocket.recv(10) == "ponged"
    websocket.close()


@case
def a_close_keeps_its_code_and_reason(target):
    websocket, _ = opened(target)
    websocket.send("do: close")
    try:
        websocket.recv(10)
        raise AssertionError("it was told to close")
    except ConnectionClosed as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as told"), closed


@case
def what_the_client_claims_to_be_does_not_arrive(target):
    websocket, caller = opened(target, additional_headers={"x-forwarded-client-cert": "URI=spiffe://a/b"})
    assert "spiffe://a/b" not in caller, caller
    websocket.close()


def a_handshake_that_nobody_takes_is_refused(target):
    host, port, _ = target
    try:
        opened((host, port, "nobody.invalid"))
        raise AssertionError("nobody is there")
    except InvalidStatus as refused:
        assert "selvedge-error" in refused.response.headers, refused.response.headers


# A server's sidecar asks for no name: what comes to it is for its app.
if "--by-name" in sys.argv:
    case(a_handshake_that_nobody_takes_is_refused)
run(sys.argv[1:4])
