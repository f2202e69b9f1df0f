"""A WebSocket server that echoes messages, and does what `do: …` messages tell it. HOST PORT"""

import sys

from websockets.sync.server import serve


def answer(connection):
    request = connection.request
    connection.send(request.headers.get("x-forwarded-client-cert") or "nobody")
    for message in connection:
        if message == "do: close":
            connection.close(4001, "as told")
            return
        elif message == "do: ping":
            connection.ping(b"server").wait(10)
            connection.send("ponged")
        elif message == "do: fragments":
            connection.send(["one", "two", "three"])
        else:
            connection.send(message)


def choose(_, offered):
    return "superchat" if "superchat" in offered else None


host, port = sys.argv[1:]
with serve(answer, host, int(port), select_subprotocol=choose, max_size=2**24) as server:
    server.serve_forever()
