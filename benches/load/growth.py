#!/usr/bin/env python3
"""growth.py RESULTS [SECONDS]: what our own costs grow with, one JSON line a point.

Tunnels that are open (memory of each, and of a request through them) by the plain and the TLS listener, streams of the relay
likewise, patterns a session may reach, sessions there are, and CPUs the gateway may use. Points of one series are taken in
rounds (ROUNDS), each point once a round; those of TLS and of the relay in two rounds of one second.
"""
import json, os, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import ours, peers as P, relay, sched_ahead

sys.argv, wanted = sys.argv[:1], sys.argv[1:]
RAW, HTTP = f"127.0.0.1:{P.RAW}", f"127.0.0.1:{P.HTTP}"
TUNNELS, PATTERNS, SESSIONS, THREADS = [1, 10, 100, 1000, 9000], [10, 1000, 100000], [1, 100, 10000], [1, 2]
STREAMS = [1, 10, 100, 1000]
SHORT_ROUNDS, SHORT_SECONDS = 2, 1


def pgen(command, run, target, *options):
    argv = [P.PGEN, command, *run.args(target), "--label", command, *map(str, options), "--watch", ",".join(map(str, run.pids))]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as late:
        return {"label": command, "error": str(late)[-300:]}
    return json.loads(done.stdout) if done.stdout.strip() else {"label": command, "error": done.stderr[-300:]}


def names(count):
    """So many patterns that are not the origins: exact names and wildcards in turn."""
    return [f"{'*.' if n % 2 else ''}h{n}.example.net" for n in range(count - 2)]


def measure(series, value, out, suite):
    try:
        run = P.start("growth")
    except RuntimeError as failed:
        # The other points are measured all the same; this one is named where errors are.
        print(json.dumps({"series": series, "value": value, "error": str(failed)}), file=out, flush=True)
        return
    try:
        for result in suite(run):
            result.update(series=series, value=value)
            print(json.dumps(result), file=out, flush=True)
    finally:
        run.stop()


def new_tunnels(seconds):
    return lambda run: [pgen("conn", run, HTTP, "--secs", seconds, "--workers", 32, "--proto", "http")]


def opened(count, seconds, target, proto, per_second, parallel=64):
    """Memory first: what requests have left behind would be taken for what tunnels hold. Requests are counted once all are
    open, at `per_second` or faster: opening is another measurement."""
    warm = 0.5 + count / per_second
    return lambda run: [
        pgen("idle", run, RAW, "--conns", count, "--warm-bytes", 1024, "--parallel", parallel, "--settle", 1),
        pgen("req", run, target, "--secs", seconds, "--conns", count, "--proto", proto, "--warm", warm)]


def short_round(tunnels_tls, out):
    for n in TUNNELS:
        P.PEERS["growth"] = tunnels_tls
        measure("tunnels-tls", n, out, opened(n, SHORT_SECONDS, HTTP, "http", 1500))
    for series in ("relay-h2", "relay-quic"):
        for n in STREAMS:
            P.PEERS["growth"] = P.PEERS[series]
            measure(series, n, out, opened(n, SHORT_SECONDS, RAW, "echo", 2000, parallel=16))


def main():
    path, seconds = wanted[0], float((wanted[1:] or ["2"])[0])
    rounds = int(os.environ.get("ROUNDS", "3"))
    if os.environ.get("AHEAD"):
        print("ahead:", sched_ahead.ahead(), file=sys.stderr)
    plain = ours.config(ours.OPAQUE)
    made = {
        **{("patterns", n): ours.peer(f"growth-p{n}", ours.config(ours.OPAQUE, names(n))) for n in PATTERNS},
        **{("sessions", n): ours.peer(f"growth-s{n}", plain, sessions=n) for n in SESSIONS},
    }
    one = made["sessions", 1]
    # The generator opens all tunnels at once, which is more than one session may have pending.
    at_once = ours.config(ours.OPAQUE, limits="pendingOpens: 10000")
    tunnels, tunnels_tls = ours.peer("growth-tunnels", at_once), ours.peer("growth-tls", at_once, tls=True)
    relay.add(["relay-h2", "relay-quic"])
    origins = P.origins()
    try:
        with open(path, "w") as out:
            for turn in range(rounds):
                for n in TUNNELS:
                    P.PEERS["growth"] = tunnels
                    measure("tunnels", n, out, opened(n, seconds, HTTP, "http", 2000))
                for (series, n), peer in made.items():
                    P.PEERS["growth"] = peer
                    measure(series, n, out, new_tunnels(seconds))
                for n in THREADS:
                    argv = [["taskset", "-c", f"0-{n - 1}", *one["cmds"][0]]]
                    P.PEERS["growth"] = {**one, "cmds": argv}
                    measure("threads", n, out, lambda run: [
                        *new_tunnels(seconds)(run),
                        pgen("bulk", run, RAW, "--secs", seconds, "--streams", 8, "--dir", "down", "--warm", 0.5)])
                if turn < SHORT_ROUNDS:
                    short_round(tunnels_tls, out)
    finally:
        origins.stop()


main()
