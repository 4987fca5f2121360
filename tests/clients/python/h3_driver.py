"""An HTTP/3 connection by aioquic, driven line by line.

    h3_driver.py ADDRESS PORT CA_FILE

Each line of standard input is a JSON command, each line of standard output a JSON event. Bytes are hexadecimal.

Commands: {"op": "request", "fields": [[name, value]...], "end": bool}, {"op": "data", "stream", "bytes", "end"},
{"op": "reset", "stream", "code"}, {"op": "stop", "stream", "code"}, {"op": "raw", "uni": bool, "bytes", "end"},
{"op": "leave", "stream"} (whatever is still open of it), {"op": "trailers", "stream", "fields"},
{"op": "append", "stream", "bytes", "end"} (as raw, on a stream that is there), {"op": "burst", "count", "fields"} (requests
that are reset at once), {"op": "fill", "stream", "count"} (so many bytes of DATA), {"op": "hold"} (no more credit for
what the server sends than it has), {"op": "move", "address"} (sends from this IPv4 address from here on).
Events: opened (stream), headers (stream, fields, end), data (stream, bytes, end), reset (stream, code),
stopped (stream, code), goaway (id), settings (settings), closed (code), connected, moved.
"""

import asyncio
import json
import socket
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import H3_ALPN, FrameUnexpected, H3Connection, parse_settings
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset


def tell(event, **more):
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


def coded(fields):
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]


class Control:
    """The server's control stream, which aioquic reads but says nothing of."""

    def __init__(self):
        self.bytes, self.typed = b"", False

    def feed(self, data):
        self.bytes += data
        buffer = Buffer(data=self.bytes)
        try:
            while True:
                if not self.typed:
                    assert buffer.pull_uint_var() == 0
                    self.typed = True
                else:
                    self.frame(buffer.pull_uint_var(), buffer.pull_bytes(buffer.pull_uint_var()))
                self.bytes = self.bytes[buffer.tell() :]
                buffer = Buffer(data=self.bytes)
        except BufferReadError:
            pass

    def frame(self, kind, payload):
        if kind == 0x4:
            tell("settings", settings={str(k): v for k, v in parse_settings(payload).items()})
        elif kind == 0x7:
            tell("goaway", id=Buffer(data=payload).pull_uint_var())


class Driver(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http, self.control = H3Connection(self._quic), Control()

    def quic_event_received(self, event):
        if isinstance(event, StreamReset):
            tell("reset", stream=event.stream_id, code=event.error_code)
        elif isinstance(event, StopSendingReceived):
            tell("stopped", stream=event.stream_id, code=event.error_code)
        elif isinstance(event, ConnectionTerminated):
            tell("closed", code=event.error_code)
            return
        elif isinstance(event, StreamDataReceived) and event.stream_id == 3:
            self.control.feed(event.data)
        for http in self.http.handle_event(event):
            if isinstance(http, HeadersReceived):
                fields = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in http.headers]
                tell("headers", stream=http.stream_id, fields=fields, end=http.stream_ended)
            elif isinstance(http, DataReceived):
                tell("data", stream=http.stream_id, bytes=http.data.hex(), end=http.stream_ended)

    def request(self, fields, end):
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, coded(fields), end)
        return stream

    def unless_gone(self, command, send):
        try:
            send(command["stream"])
        except FrameUnexpected:
            # The gateway has ended it both ways already, and the library forgotten it.
            tell("gone", stream=command["stream"])

    async def move(self, address):
        new = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        new.bind((f"::ffff:{address}", 0, 0, 0))
        # Heard on beside the one before.
        await self._loop.create_datagram_endpoint(lambda: self, sock=new)
        tell("moved")

    def obey(self, command):
        quic, op = self._quic, command["op"]
        if op == "request":
            stream = self.request(command["fields"], command["end"])
            tell("opened", stream=stream)
        elif op == "burst":
            for _ in range(command["count"]):
                stream = self.request(command["fields"], False)
                quic.reset_stream(stream, 0x10C)
                quic.stop_stream(stream, 0x10C)
        elif op == "trailers":
            self.unless_gone(command, lambda to: self.http.send_headers(to, coded(command["fields"]), True))
        elif op == "data":
            data, end = bytes.fromhex(command["bytes"]), command["end"]
            self.unless_gone(command, lambda to: self.http.send_data(to, data, end))
        elif op == "reset":
            quic.reset_stream(command["stream"], command["code"])
        elif op == "leave":
            # Both ways, as far as they are still open.
            stream = quic._streams.get(command["stream"])
            if stream and not stream.sender.is_finished:
                quic.reset_stream(stream.stream_id, 0x10C)
            if stream and not stream.receiver.is_finished:
                quic.stop_stream(stream.stream_id, 0x10C)
        elif op == "stop":
            quic.stop_stream(command["stream"], command["code"])
        elif op == "raw":
            stream = quic.get_next_available_stream_id(is_unidirectional=command["uni"])
            quic.send_stream_data(stream, bytes.fromhex(command["bytes"]), command["end"])
            tell("opened", stream=stream)
        elif op == "append":
            quic.send_stream_data(command["stream"], bytes.fromhex(command["bytes"]), command["end"])
        elif op == "hold":
            quic._write_connection_limits = quic._write_stream_limits = lambda *_, **__: None
        elif op == "fill":
            self.http.send_data(command["stream"], b"*" * command["count"], False)
        self.transmit()


async def main():
    address, port, ca = sys.argv[1:]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, idle_timeout=60)
    configuration.load_verify_locations(ca)
    async with connect(
        address, int(port), configuration=configuration, create_protocol=Driver, wait_connected=True
    ) as driver:
        tell("connected")
        reader = asyncio.StreamReader(limit=64 << 20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            command = json.loads(line)
            if command["op"] == "move":
                await driver.move(command["address"])
            else:
                driver.obey(command)


asyncio.run(main())
