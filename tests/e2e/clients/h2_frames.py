"""HTTP/2 frame by frame, by python-h2: what is allowed and seldom sent. HOST PORT AUTHORITY"""

import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from table import case, run

LIMIT = 20


class Client:
    """One connection; `frame` sends what python-h2 itself would not."""

    def __init__(self, target, settings=None):
        host, port, self.authority = target
        self.socket = socket.create_connection((host, int(port)), timeout=LIMIT)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config=config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()
        self.answers = {}
        self.events = []

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def head(self, path, method="GET", *more):
        return [
            (":method", method),
            (":scheme", "http"),
            (":authority", self.authority),
            (":path", path),
            *more,
        ]

    def ask(self, path="/", method="GET", *more, end=True):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.head(path, method, *more), end_stream=end)
        self.flush()
        return stream

    def frame(self, frame):
        self.flush()
        self.socket.sendall(frame.serialize())

    def raw_stream(self, path, method="GET", *more):
        """A stream that python-h2 knows, and the header block that it would have sent."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.head(path, method, *more), end_stream=method == "GET")
        block = self.h2.data_to_send()[9:]
        return stream, block

    def read(self, acknowledge=True):
        data = self.socket.recv(65536)
        assert data, "the connection was closed"
        for event in self.h2.receive_data(data):
            self.note(event, acknowledge)
        self.flush()

    def note(self, event, acknowledge):
        self.events.append(event)
        answer = self.answers.setdefault(getattr(event, "stream_id", None), Answer())
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if acknowledge and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code

    def until(self, what, acknowledge=True):
        while not what():
            self.read(acknowledge)

    def answer(self, stream):
        self.answers.setdefault(stream, Answer())
        self.until(lambda: self.answers[stream].ended or self.answers[stream].reset is not None)
        answer = self.answers[stream]
        assert answer.reset is None, f"stream {stream} was reset with {answer.reset}"
        return answer

    def is_served(self):
        assert self.answer(self.ask()).status == "200"


class Answer:
    def __init__(self):
        self.headers, self.body, self.trailers, self.ended, self.reset = {}, b"", {}, False, None

    @property
    def status(self):
        return self.headers.get(":status")


@case
def streams_interleave(target):
    client = Client(target)
    streams = [client.ask(f"/echo?n={n}", "POST", end=False) for n in range(50)]
    for part in range(3):
        for stream in streams:
            client.h2.send_data(stream, f"{stream}.{part};".encode(), end_stream=part == 2)
        client.flush()
    for stream in streams:
        assert client.answer(stream).body.decode() == f"{stream}.0;{stream}.1;{stream}.2;"


@case
def a_head_in_pieces(target):
    client = Client(target)
    stream, block = client.raw_stream("/?continued=1")
    client.frame(HeadersFrame(stream, data=block[:1], flags=["END_STREAM"]))
    client.frame(ContinuationFrame(stream, data=block[1:2]))
    client.frame(ContinuationFrame(stream))
    client.frame(ContinuationFrame(stream, data=block[2:], flags=["END_HEADERS"]))
    assert b"/?continued=1" in client.answer(stream).body


@case
def padding_is_no_content(target):
    client = Client(target)
    stream = client.ask("/echo", "POST", end=False)
    client.h2.send_data(stream, b"left", pad_length=255)
    client.h2.send_data(stream, b"", pad_length=100)
    client.h2.send_data(stream, b"right", end_stream=True, pad_length=0)
    client.flush()
    assert client.answer(stream).body == b"leftright"


@case
def a_body_ends_with_an_empty_frame(target):
    client = Client(target)
    stream = client.ask("/echo", "POST", ("content-length", "4"), end=False)
    client.h2.send_data(stream, b"body")
    client.flush()
    client.h2.end_stream(stream)
    client.flush()
    assert client.answer(stream).body == b"body"


@case
def priorities_are_taken_and_mean_nothing(target):
    client = Client(target)
    stream = client.h2.get_next_available_stream_id()
    client.frame(PriorityFrame(stream + 100, depends_on=stream, stream_weight=7))
    client.h2.send_headers(
        stream, client.head("/"), end_stream=True, priority_weight=1, priority_depends_on=0, priority_exclusive=True
    )
    client.flush()
    assert client.answer(stream).status == "200"


def unknown(type, stream, body):
    frame = ExtensionFrame(type, stream, flag_byte=0xFF)
    frame.parse_body(memoryview(body))
    return frame


@case
def frames_of_unknown_types_are_passed_over(target):
    client = Client(target)
    client.frame(unknown(0xBE, 0, b"whatever"))
    stream = client.ask("/echo", "POST", end=False)
    client.frame(unknown(0xEF, stream, b"x" * 1000))
    client.h2.send_data(stream, b"body", end_stream=True)
    client.flush()
    assert client.answer(stream).body == b"body"


@case
def a_ping_is_answered_while_a_request_waits(target):
    client = Client(target)
    stream = client.ask("/?delay=500ms")
    client.h2.ping(b"whoareyu")
    client.flush()
    client.until(lambda: any(isinstance(event, h2.events.PingAckReceived) for event in client.events))
    assert not client.answers.get(stream, Answer()).ended, "the ping waited for the answer"
    assert client.answer(stream).status == "200"


@case
def settings_are_acknowledged_at_any_time(target):
    client = Client(target)
    for size in (100, 70_000, 65_535):
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size})
        client.flush()
        client.is_served()
    client.until(
        lambda: sum(isinstance(event, h2.events.SettingsAcknowledged) for event in client.events) >= 4
    )


@case
def a_closed_window_holds_the_body_and_not_the_connection(target):
    client = Client(target, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    held = client.ask("/?bytes=100000")
    client.until(lambda: client.answers.get(held, Answer()).status == "200")
    head = client.ask("/", "HEAD")
    assert client.answer(head).status == "200"
    assert client.answers[held].body == b""
    client.h2.increment_flow_control_window(100_000, held)
    client.flush()
    assert len(client.answer(held).body) == 100_000


@case
def a_window_opened_byte_by_byte_gives_byte_by_byte(target):
    client = Client(target, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    stream = client.ask("/trailers", "GET", ("te", "trailers"))
    for length in range(1, 6):
        client.h2.increment_flow_control_window(1, stream)
        client.flush()
        client.until(lambda: len(client.answers.get(stream, Answer()).body) >= length, acknowledge=False)
        assert client.answers[stream].body == b"hello"[:length]
    assert client.answer(stream).trailers == {"x-checksum": "sha-of-hello"}


@case
def no_dynamic_table_is_needed(target):
    client = Client(target, {h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0})
    for _ in range(3):
        client.is_served()


@case
def the_largest_frames_are_allowed_and_not_required(target):
    client = Client(target, {h2.settings.SettingCodes.MAX_FRAME_SIZE: 2**24 - 1})
    stream = client.ask("/?bytes=1000000")
    assert len(client.answer(stream).body) == 1_000_000


@case
def a_reset_in_the_middle_ends_that_stream_only(target):
    client = Client(target)
    other = client.ask("/?delay=300ms")
    upload = client.ask("/echo", "POST", end=False)
    client.h2.send_data(upload, b"start")
    client.h2.reset_stream(upload, error_code=8)
    client.flush()
    assert client.answer(other).status == "200"
    client.is_served()


@case
def a_late_window_update_or_reset_of_an_ended_stream_is_nothing(target):
    client = Client(target)
    stream = client.ask()
    client.answer(stream)
    client.frame(WindowUpdateFrame(stream, window_increment=1))
    client.frame(RstStreamFrame(stream, error_code=8))
    client.is_served()


@case
def a_window_that_overflows_ends_its_stream_with_flow_control_error(target):
    client = Client(target)
    stream = client.ask("/?delay=2s")
    client.frame(WindowUpdateFrame(stream, window_increment=2**31 - 1))
    client.until(lambda: client.answers.get(stream, Answer()).reset is not None)
    assert client.answers[stream].reset == 3, client.answers[stream].reset  # FLOW_CONTROL_ERROR
    client.is_served()


@case
def a_client_that_says_goaway_is_still_answered(target):
    client = Client(target)
    stream = client.ask("/?delay=300ms")
    client.frame(GoAwayFrame(0, last_stream_id=0, error_code=0))
    assert client.answer(stream).status == "200"


@case
def trailers_of_a_request_are_taken(target):
    client = Client(target)
    stream = client.ask("/echo", "POST", ("te", "trailers"), end=False)
    client.h2.send_data(stream, b"body")
    client.h2.send_headers(stream, [("x-checksum", "sha-of-body")], end_stream=True)
    client.flush()
    assert client.answer(stream).body == b"body"


@case
def data_on_stream_zero_ends_the_connection(target):
    client = Client(target)
    # Nothing of ours is under way after this, so that no reset overtakes what is said at the end.
    client.is_served()
    frame = DataFrame(1, data=b"x")
    frame.stream_id = 0
    client.frame(frame)
    ends = []
    while not ends:
        data = client.socket.recv(65536)
        assert data, "closed without saying why"
        ends = [e for e in client.h2.receive_data(data) if isinstance(e, h2.events.ConnectionTerminated)]
    assert ends[0].error_code == 1, ends  # PROTOCOL_ERROR


run(sys.argv[1:])
