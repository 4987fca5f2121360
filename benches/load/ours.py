"""Our gateway as one more peer of the harness in ../shared/peers.

What the peers have on is on here: basic authentication (a session's handle is the password), an allowlist of the same
two origins, an access log in a file. Ways to it:

  ours         the plain listener; the origins' rule is `tls: opaque`, that is bytes are carried unseen, as all peers do
  ours-tls     the same through the public listener, with the peers' certificate (ECDSA P-256)
  ours-judged  the plain listener with the default rule: first bytes are judged, and plain HTTP in the tunnel is parsed,
               judged and written anew request by request, which no peer does
  ours-named   as ours, but asked for the origins by a name with a static answer, as users ask for names; all others are asked
               for 127.0.0.1 literally
  ours-before  as ours, by the build that SLUICEGATE_BEFORE names; ours-before-tls likewise

State (keys, one session) is made once under PEERS_ROOT/ours and used by every start.
"""
import http.client, json, os, shutil, signal, socket, subprocess, time

import peers as P

BINARY = os.environ.get("SLUICEGATE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../target/release/sluicegate"))
# Another build, to see what a change did.
BEFORE = os.environ.get("SLUICEGATE_BEFORE", BINARY)
STATE = f"{P.ROOT}/ours"
PLAIN, PUBLIC, MANAGEMENT = 3190, 3191, 3192
# The origins' address, and a name for it.
ADDRESS, NAME = "127.0.0.1", "origin.test"
# The same 100,000 tunnels the peers are allowed; nothing else differs from the defaults.
CONFIG = f"""
listeners:
  - {{kind: plain, address: "127.0.0.1:{PLAIN}"}}
  - {{kind: public, address: "127.0.0.1:{PUBLIC}"}}
  - {{kind: management, address: "127.0.0.1:{MANAGEMENT}"}}
tls: {{certificate: {P.C}/cert.pem, key: {P.C}/key.pem}}
limits: {{connections: 100000, drainTimeout: 1s{{LIMITS}}}}
telemetry: {{accessLog: {{R}}/access.log, log: error}}
{{DNS}}egress:
  allowedHosts: ["{{HOST}}:{P.RAW}", "{{HOST}}:{P.HTTP}"{{MORE}}]
{{RULES}}
"""
OPAQUE = f"""  rules:
    - {{host: "{{HOST}}:{P.RAW}", tls: opaque}}
    - {{host: "{{HOST}}:{P.HTTP}", tls: opaque}}
"""


def config(rules, more=(), host=ADDRESS, limits=""):
    entries = "".join(f', "{name}"' for name in more)
    answers = "" if host == ADDRESS else f"dns: {{hosts: {{{host}: {ADDRESS}}}}}\n"
    filled = {"{RULES}": rules, "{MORE}": entries, "{DNS}": answers, "{HOST}": host, "{LIMITS}": limits and f", {limits}"}
    text = CONFIG
    for place, said in filled.items():
        text = text.replace(place, said)
    return text


def command(name, *arguments):
    return [BEFORE if "before" in name else BINARY, *arguments, "--state-dir", f"{STATE}/{name}"]


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr}")
    return done.stdout


def prepare(name, text, sessions=1):
    """State with `sessions` running sessions; the last one's handle."""
    directory = f"{STATE}/{name}"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    path = f"{directory}/prepare.yaml"
    with open(path, "w") as file:
        file.write(text.replace("{R}", directory))
    gateway = subprocess.Popen(command(name, "serve", "--config", path), stdout=subprocess.DEVNULL, stderr=open(f"{directory}/prepare.err", "wb"))
    try:
        for _ in range(150):
            if P.up(MANAGEMENT) and os.path.exists(f"{directory}/admin.sock"):
                break
            time.sleep(0.1)
        crowd(directory, sessions - 1)
        created = run(*command(name, "session", "create", "--format", "json", "--idle-timeout", "0"))
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)
    url = json.loads(created)["env"]["HTTPS_PROXY"]
    return url.split("//sluicegate:")[1].split("@")[0]


def crowd(directory, count):
    """So many sessions more, by the admin API on its socket."""
    if not count:
        return
    with open(f"{directory}/admin.token") as file:
        headers = {"Authorization": f"Bearer {file.read().strip()}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"{directory}/admin.sock")
    for _ in range(count):
        connection.request("POST", "/admin/api/v1/runtime/providers/local/sessions", "{}", headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 201):
            raise SystemExit(f"session: {answer.status} {said[:300]}")


def serving(name):
    return command(name, "serve", "--config", "{R}/sluicegate.yaml")


def peer(name, text, tls=False, sessions=1, origin=ADDRESS):
    handle = prepare(name, text, sessions)
    port = PUBLIC if tls else PLAIN
    arguments = ["--proxy", f"127.0.0.1:{port}", "--auth", f"sluicegate:{handle}"] + (["--proxy-tls"] if tls else [])
    return dict(kind="egress", conf={"{R}/sluicegate.yaml": text}, cmds=[serving(name)], ports=[port], args=arguments, origin=origin)


# What each is configured by, and what `peer` is told of it beside.
WAYS = {
    "ours": (config(OPAQUE), {}),
    "ours-tls": (config(OPAQUE), {"tls": True}),
    "ours-judged": (config(""), {}),
    "ours-named": (config(OPAQUE, host=NAME), {"origin": NAME}),
    "ours-before": (config(OPAQUE), {}),
    "ours-before-tls": (config(OPAQUE), {"tls": True}),
}


def add(names):
    """Make those of `names` that are ours known to the harness."""
    for name in names:
        if name in WAYS:
            text, options = WAYS[name]
            P.PEERS[name] = peer(name, text, **options)


def by_name(asked):
    """The harness asks every peer for the origins' address; a peer that has a name for them is asked for that."""
    return lambda run, target: asked(run, target.replace(ADDRESS, run.peer.get("origin", ADDRESS)))


P.Running.args = by_name(P.Running.args)
