"""Our relay as more peers of the harness in ../shared/peers: gateway and `sluicegate-relay`, one per transport.

What stands between is what users have: TLS with the peers' certificate, a token verified and a policy decided for each
stream, an access log in a file. State (keys, one session) is made once under PEERS_ROOT/ours and used by every start.
"""
import json, os, shutil, signal, subprocess, time

import peers as P

HERE = os.path.dirname(os.path.abspath(__file__))
BINARIES = os.environ.get("SLUICEGATE_BIN_DIR", os.path.join(HERE, "../../target/release"))
STATE = f"{P.ROOT}/ours/relay"
PUBLIC, MANAGEMENT, LOCAL = 5391, 5392, 5393
TRANSPORTS = ["quic", "h2"]
CONFIG = f"""
listeners:
  - {{kind: public, address: "127.0.0.1:{PUBLIC}"}}
  - {{kind: management, address: "127.0.0.1:{MANAGEMENT}"}}
tls: {{certificate: {P.C}/cert.pem, key: {P.C}/key.pem}}
limits: {{connections: 100000, drainTimeout: 1s}}
probe: {{interval: 0}}
telemetry: {{accessLog: {STATE}/access.log, log: error}}
"""


def sluicegate(*arguments):
    return [f"{BINARIES}/sluicegate", *arguments, "--state-dir", STATE]


def prepare():
    """State with one running session that has the raw origin as a service; its token in a file."""
    shutil.rmtree(STATE, ignore_errors=True)
    os.makedirs(STATE)
    with open(f"{STATE}/sluicegate.yaml", "w") as file:
        file.write(CONFIG)
    gateway = subprocess.Popen(serving(), stdout=subprocess.DEVNULL, stderr=open(f"{STATE}/prepare.err", "wb"))
    try:
        for _ in range(150):
            if P.up(MANAGEMENT) and os.path.exists(f"{STATE}/admin.sock"):
                break
            time.sleep(0.1)
        create = sluicegate("session", "create", "--format", "json", "--idle-timeout", "0", "--service", f"raw=tcp://127.0.0.1:{P.RAW}")
        done = subprocess.run(create, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"session create: {done.stderr}")
        token = json.loads(done.stdout)["env"]["SLUICEGATE_RELAY_TOKEN"]
        with open(f"{STATE}/token", "w") as file:
            file.write(token)
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait()


def serving():
    return sluicegate("serve", "--config", f"{STATE}/sluicegate.yaml")


def commands(transport):
    client = [f"{BINARIES}/sluicegate-relay", "up", "--transport", transport, "--url", f"https://127.0.0.1:{PUBLIC}"]
    client += ["--token-file", f"{STATE}/token", "--ca", f"{P.C}/ca.pem", "--listen", f"raw=tcp://127.0.0.1:{LOCAL}"]
    return [serving(), client]


def add(names):
    """Make those of `names` that are ours known to the harness: `relay-quic` and so on."""
    wanted = [name for name in TRANSPORTS if f"relay-{name}" in names]
    if wanted:
        prepare()
    for transport in wanted:
        P.PEERS[f"relay-{transport}"] = P.relay(commands(transport), LOCAL, order_wait=PUBLIC)
