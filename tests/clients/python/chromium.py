"""Headless Chromium through an https:// proxy, by its debugging protocol.

    chromium.py PROXY_ADDRESS USER PASSWORD BUNDLE DIRECTORY URL...

Opens each URL in turn and prints a JSON list of {url, error, status, protocol, title, text}. The browser trusts what BUNDLE has beyond the
system's roots, asks no resolver, and answers the proxy's challenge as a person would, in its dialog.
"""

import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from websockets.sync.client import connect

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")
PATIENCE = 60


def certificates(path):
    return {"".join(pem.split()): pem for pem in PEM.findall(Path(path).read_text())}


def trust(bundle, home):
    """Chromium on Linux reads the user's NSS database."""
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    run = lambda *arguments: subprocess.run(["certutil", "-d", f"sql:{database}", *arguments], check=True)
    run("-N", "--empty-password")
    system = certificates(SYSTEM) if SYSTEM.exists() else {}
    for number, (key, pem) in enumerate(certificates(bundle).items()):
        if key not in system:
            file = home / f"{number}.pem"
            file.write_text(pem + "\n")
            run("-A", "-t", "C,,", "-n", f"test {number}", "-i", str(file))


@contextlib.contextmanager
def browser(proxy, home):
    arguments = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-extensions", "--remote-debugging-port=0", f"--user-data-dir={home / 'profile'}",
        f"--proxy-server=https://{proxy}", "--proxy-bypass-list=<-loopback>",
        # Nothing is resolved here: names are the proxy's to resolve.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "about:blank",
    ]
    log = open(home / "chromium.log", "w")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + PATIENCE
        port = home / "profile/DevToolsActivePort"
        while not (port.exists() and len(port.read_text().split()) == 2):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit("chromium does not start:\n" + (home / "chromium.log").read_text())
            time.sleep(0.05)
        number, path = port.read_text().split()
        yield f"ws://127.0.0.1:{number}{path}"
    finally:
        process.kill()
        process.wait()


class Page:
    def __init__(self, socket, user, password):
        self.socket, self.ids = socket, itertools.count(1)
        self.credential = {"response": "ProvideCredentials", "username": user, "password": password}
        self.answer, self.loaded = {}, False
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")
        self.call("Fetch.enable", handleAuthRequests=True)

    def send(self, method, **parameters):
        message = {"id": next(self.ids), "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        return message["id"]

    def hear(self):
        """One message; events are dealt with here."""
        message = json.loads(self.socket.recv(timeout=PATIENCE))
        event, told = message.get("method"), message.get("params", {})
        if event == "Fetch.requestPaused":
            self.send("Fetch.continueRequest", requestId=told["requestId"])
        elif event == "Fetch.authRequired":
            assert told["authChallenge"]["source"] == "Proxy", told
            self.send("Fetch.continueWithAuth", requestId=told["requestId"], authChallengeResponse=self.credential)
        elif event == "Network.responseReceived" and told["type"] == "Document":
            self.answer = told["response"]
        elif event == "Page.loadEventFired":
            self.loaded = True
        return message

    def call(self, method, **parameters):
        wanted = self.send(method, **parameters)
        while (message := self.hear()).get("id") != wanted:
            pass
        if "error" in message:
            sys.exit(f"{method}: {message['error']}")
        return message["result"]

    def open(self, url):
        self.answer, self.loaded = {}, False
        error = self.call("Page.navigate", url=url).get("errorText")
        while not error and not self.loaded:
            self.hear()
        read = lambda text: self.call("Runtime.evaluate", expression=text)["result"].get("value")
        return {
            "url": url,
            "error": error,
            "status": self.answer.get("status"),
            "protocol": self.answer.get("protocol"),
            "title": read("document.title"),
            "text": read("document.body ? document.body.innerText : ''"),
        }


def main():
    proxy, user, password, bundle, directory, *urls = sys.argv[1:]
    home = Path(directory)
    trust(bundle, home)
    with browser(proxy, home) as address, connect(address, max_size=None, proxy=None) as socket:
        page = Page(socket, user, password)
        print(json.dumps([page.open(url) for url in urls]))


main()
