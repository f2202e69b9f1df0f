"""The demo's gRPC service `Echo` (examples/demo/proto/echo.proto), its few fields coded by hand."""

from dataclasses import dataclass, fields

SERVICE = "selvedge.demo.v1.Echo"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


class Message:
    """Protobuf: each field of the class in order, numbered from 1, text or number."""

    def encode(self):
        out = b""
        for number, field in enumerate(fields(self), 1):
            value = getattr(self, field.name)
            if isinstance(value, str) and value:
                data = value.encode()
                out += varint(number << 3 | 2) + varint(len(data)) + data
            elif isinstance(value, int) and value:
                out += varint(number << 3) + varint(value)
        return out

    @classmethod
    def decode(cls, data):
        message, at = cls(), 0
        while at < len(data):
            key, at = read_varint(data, at)
            value, at = read_varint(data, at)
            if key & 7 == 2:
                value, at = data[at : at + value].decode(), at + value
            setattr(message, fields(cls)[(key >> 3) - 1].name, value)
        return message


@dataclass
class Request(Message):
    text: str = ""
    count: int = 0
    status: int = 0


@dataclass
class Reply(Message):
    text: str = ""
    pod: str = ""
    number: int = 0
    client_identity: str = ""
