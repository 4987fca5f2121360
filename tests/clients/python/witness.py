"""Python's HTTP server as a witness, with a handler for any method:  python3 witness.py

Prints `ready PORT`, then `seen STATUS BY HOST PATH` for everything it serves, BY being whether a gateway had a hand in it. A method may
have control characters in it, as whoever passes methods on would let it; other characters that no method has it may not.
"""

import http.server
import re
import threading
from urllib.parse import quote

WRITING = threading.Lock()
METHOD = re.compile(r"do_[!#$%&'*+.^_`|~0-9A-Za-z\x00-\x1f\x7f-]+")


class Witness(http.server.BaseHTTPRequestHandler):
    def __getattr__(self, name):
        if METHOD.fullmatch(name):
            return self.serve
        raise AttributeError(name)

    def serve(self):
        by = "gateway" if self.headers.get("Via") else "nobody"
        host = quote(self.headers.get("Host") or "-", safe=":")
        with WRITING:
            print("seen 200", by, host, quote(self.path, safe="/:?-"), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"served")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_):
        pass


server = Server(("127.0.0.1", 0), Witness)
print("ready", server.server_port, flush=True)
server.serve_forever()
