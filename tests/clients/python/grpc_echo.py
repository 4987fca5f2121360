"""gRPC by grpcio, server and client, without generated stubs: messages are plain bytes.

    grpc_echo.py serve unix:PATH | tls CERTIFICATE KEY      prints `ready PORT`; --streams N: calls at once on a connection
    grpc_echo.py crowd TARGET [--tls] [--token T] --calls N [--over]
    grpc_echo.py use TARGET [--tls] [--token T] [--binding B]
    grpc_echo.py refused TARGET [--tls] [--token T] [--method M] --code NAME --details TEXT [--echo M]: M passes before and after
    grpc_echo.py cut TARGET --code NAME --details TEXT [--echo M]   prints `open`; the call that is open then ends so, and M passes

Proxy and trust come from the environment (http_proxy, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH).
"""

import argparse
import json
import queue
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "e2e.Echo"
cancelled = threading.Event()


def check(fact, message):
    if not fact:
        sys.exit(f"not so: {message}")


# ---------------------------------------------------------------- server


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "of-unary"), ("x-bin-bin", b"\x00\xff")))
    return request


def seen(_, context):
    """What metadata reached the service: the witness that a token did not."""
    pairs = [[key, value if isinstance(value, str) else value.hex()] for key, value in context.invocation_metadata()]
    return json.dumps({"metadata": pairs, "remaining": context.time_remaining()}).encode()


def server_stream(request, _):
    for number in range(int(request)):
        yield str(number).encode() * 100


def client_stream(requests, _):
    return str(sum(len(request) for request in requests)).encode()


def bidi(requests, _):
    for request in requests:
        yield request[::-1]


def fail(_, context):
    context.set_trailing_metadata((("x-why", "on purpose"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it was asked to fail")


def wait(_, context):
    """Answers never; remembers when the caller gave up."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(60)
    cancelled.set()
    return b""


def was_cancelled(_, __):
    return b"yes" if cancelled.wait(20) else b"no"


def run_server(given):
    def handlers():
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Seen": grpc.unary_unary_rpc_method_handler(seen),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "Wait": grpc.unary_unary_rpc_method_handler(wait),
            "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
        }

    options = [("grpc.max_concurrent_streams", given.streams)] if given.streams else []
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers())])
    if given.where == "tls":
        certificate, key = (open(path, "rb").read() for path in given.files)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port(given.where)
        port = 0 if given.where.startswith("unix:") else port
    server.start()
    print("ready", port, flush=True)
    server.wait_for_termination()


# ---------------------------------------------------------------- client


class Client:
    def __init__(self, given):
        options = [("grpc.max_receive_message_length", -1)]
        if given.tls:
            self.channel = grpc.secure_channel(given.target, grpc.ssl_channel_credentials(), options)
        else:
            self.channel = grpc.insecure_channel(given.target, options)
        self.metadata = [("x-kept", "kept")]
        if given.token:
            self.metadata.append(("x-gestalt-host-service-relay-token", given.token))
        if given.binding:
            self.metadata.append(("x-gestalt-host-binding", given.binding))

    def call(self, kind, method, argument, timeout=20):
        stub = getattr(self.channel, kind)(f"/{SERVICE}/{method}")
        return stub(argument, metadata=self.metadata, timeout=timeout, wait_for_ready=False)

    def unary(self, method, argument=b"", timeout=20):
        return self.call("unary_unary", method, argument, timeout)


def use(given):
    client = Client(given)
    check(client.unary("Unary", b"hello") == b"hello", "a unary call comes back")
    large = bytes(range(256)) * 12_000
    check(client.unary("Unary", large) == large, "3 MB come back whole")

    call = client.channel.unary_unary(f"/{SERVICE}/Unary").with_call(b"x", metadata=client.metadata, timeout=20)[1]
    trailers = dict(call.trailing_metadata())
    check(trailers.get("x-trailer") == "of-unary", f"trailers arrive: {trailers}")
    check(trailers.get("x-bin-bin") == b"\x00\xff", f"binary trailers arrive: {trailers}")

    witness = json.loads(client.unary("Seen", timeout=17))
    fields = dict(witness["metadata"])
    check(fields.get("x-kept") == "kept", f"metadata reaches the service: {fields}")
    check(not [key for key in fields if "relay-token" in key], f"no credential reaches the service: {sorted(fields)}")
    check(given.token is None or given.token not in str(witness), "the token reaches the service under no name")
    check(5 < witness["remaining"] < 18, f"the deadline reaches the service: {witness['remaining']}")

    rows = list(client.call("unary_stream", "ServerStream", b"500"))
    check(rows == [str(n).encode() * 100 for n in range(500)], f"500 messages, in order: {len(rows)}")
    total = client.call("stream_unary", "ClientStream", iter([b"12345"] * 400))
    check(total == b"2000", f"a client stream arrives whole: {total}")
    lockstep(client)
    failures(client)
    cancellation(client)
    print("ok")


def lockstep(client):
    """Each question waits for the answer before it: nothing between may hold messages back."""
    turn = threading.Semaphore(1)

    def questions():
        for number in range(50):
            check(turn.acquire(timeout=20), f"answer {number} comes before question {number + 1}")
            yield b"question %d" % number

    for number, answer in enumerate(client.call("stream_stream", "Bidi", questions())):
        check(answer == (b"question %d" % number)[::-1], f"bidi answer {number}: {answer}")
        turn.release()
    check(number == 49, "the bidi stream ends after the last question")


def failures(client):
    try:
        client.unary("Fail")
        check(False, "a failing call fails")
    except grpc.RpcError as error:
        check(error.code() is grpc.StatusCode.FAILED_PRECONDITION, f"the service's own code arrives: {error}")
        check(error.details() == "it was asked to fail", f"its details arrive: {error.details()}")
        check(dict(error.trailing_metadata()).get("x-why") == "on purpose", "and its trailers")
    try:
        client.unary("Nowhere")
        check(False, "an unknown method fails")
    except grpc.RpcError as error:
        check(error.code() is grpc.StatusCode.UNIMPLEMENTED, f"as UNIMPLEMENTED: {error}")


def cancellation(client):
    begin = time.monotonic()
    try:
        client.unary("Wait", timeout=0.5)
        check(False, "a deadline passes")
    except grpc.RpcError as error:
        check(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, f"as DEADLINE_EXCEEDED: {error}")
    check(time.monotonic() - begin < 10, "in time")
    check(client.unary("WasCancelled") == b"yes", "the service learns that the caller gave up")


def crowd(given):
    """Calls that are open at once, none of which has anything to do with another; `--over`: there is room for no more."""
    client = Client(given)
    calls = []
    for number in range(given.calls):
        questions = queue.Queue()
        answers = client.call("stream_stream", "Bidi", iter(questions.get, None), timeout=60)
        calls.append((questions, answers))
    for number in list(range(given.calls)) * 2:
        questions, answers = calls[number]
        questions.put(b"call %d" % number)
        check(next(answers) == (b"call %d" % number)[::-1], f"call {number} is answered while the others are open")
    if given.over:
        try:
            client.unary("Unary", b"one more", timeout=30)
            check(False, "one more is refused")
        except grpc.RpcError as error:
            check(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, f"as RESOURCE_EXHAUSTED: {error}")
            check(error.details() == "too_many_opens", f"by name: {error.details()!r}")
    for questions, answers in calls:
        questions.put(None)
        check(list(answers) == [], "it ends after its last answer")
    check(client.unary("Unary", b"hello") == b"hello", "there is room again")
    print("ok")


def refused(given):
    client = Client(given)
    path = given.method or f"/{SERVICE}/Unary"

    def neighbour(when):
        if given.echo:
            check(client.unary(given.echo, b"neighbour") == b"neighbour", f"another method passes {when}")

    neighbour("before")
    try:
        client.channel.unary_unary(path)(b"", metadata=client.metadata, timeout=20)
        sys.exit("not so: the call is refused")
    except grpc.RpcError as error:
        check(error.code().name == given.code, f"code {given.code}: {error}")
        check(error.details() == given.details, f"details {given.details!r}: {error.details()!r}")
    neighbour("after")
    print("ok")


def cut(given):
    """A call is open, and what ends it is told in words of gRPC."""
    client = Client(given)
    questions = queue.Queue()
    answers = client.call("stream_stream", "Bidi", iter(questions.get, None), timeout=60)
    questions.put(b"first")
    check(next(answers) == b"tsrif", "it is open")
    print("open", flush=True)
    try:
        next(answers)
        check(False, "it is cut")
    except grpc.RpcError as error:
        check(error.code().name == given.code, f"code {given.code}: {error}")
        check(error.details() == given.details, f"details {given.details!r}: {error.details()!r}")
    finally:
        questions.put(None)
    if given.echo:
        check(client.unary(given.echo, b"another") == b"another", "another method passes after it")
    print("ok")


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("serve")
    verb.set_defaults(run=run_server)
    verb.add_argument("where")
    verb.add_argument("files", nargs="*")
    verb.add_argument("--streams", type=int)
    for name, run in [("use", use), ("refused", refused), ("crowd", crowd), ("cut", cut)]:
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("target")
        verb.add_argument("--tls", action="store_true")
        verb.add_argument("--token")
        verb.add_argument("--binding")
        verb.add_argument("--method")
        verb.add_argument("--code")
        verb.add_argument("--details")
        verb.add_argument("--calls", type=int)
        verb.add_argument("--over", action="store_true")
        verb.add_argument("--echo")
    given = parser.parse_args()
    given.run(given)


main()
