#!/usr/bin/env python3
"""growth.py RESULTS [SECONDS]: what our own costs grow with, one JSON line a point.

Tunnels that are open (memory of each, and of a request through them), patterns a session may reach, sessions there are,
and CPUs the gateway may use. Points of one series are taken in rounds, each point once a round.
"""
import json, os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import ours, peers as P, sched_ahead

sys.argv, wanted = sys.argv[:1], sys.argv[1:]
RAW, HTTP = f"127.0.0.1:{P.RAW}", f"127.0.0.1:{P.HTTP}"
TUNNELS, PATTERNS, SESSIONS, THREADS = [1, 10, 100, 1000, 9000], [10, 1000, 100000], [1, 100, 10000], [1, 2]


def pgen(command, run, target, *options):
    import subprocess
    argv = [P.PGEN, command, *run.args(target), "--label", command, *map(str, options), "--watch", ",".join(map(str, run.pids))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr[-300:]}


def names(count):
    """So many patterns that are not the origins: exact names and wildcards in turn."""
    return [f"{'*.' if n % 2 else ''}h{n}.example.net" for n in range(count - 2)]


def measure(series, value, out, suite):
    run = P.start("growth")
    try:
        for result in suite(run):
            result.update(series=series, value=value)
            print(json.dumps(result), file=out, flush=True)
    finally:
        run.stop()


def new_tunnels(seconds):
    return lambda run: [pgen("conn", run, HTTP, "--secs", seconds, "--workers", 32, "--proto", "http")]


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
    origins = P.origins()
    try:
        with open(path, "w") as out:
            for _ in range(rounds):
                for n in TUNNELS:
                    P.PEERS["growth"] = one
                    # Memory first: what requests have left behind would be taken for what tunnels hold.
                    measure("tunnels", n, out, lambda run: [
                        pgen("idle", run, RAW, "--conns", n, "--warm-bytes", 1024),
                        pgen("req", run, HTTP, "--secs", seconds, "--conns", n, "--proto", "http")])
                for (series, n), peer in made.items():
                    P.PEERS["growth"] = peer
                    measure(series, n, out, new_tunnels(seconds))
                for n in THREADS:
                    argv = [["taskset", "-c", f"0-{n - 1}", *one["cmds"][0]]]
                    P.PEERS["growth"] = {**one, "cmds": argv}
                    measure("threads", n, out, lambda run: [
                        *new_tunnels(seconds)(run),
                        pgen("bulk", run, RAW, "--secs", seconds, "--streams", 8, "--dir", "down", "--warm", 0.5)])
    finally:
        origins.stop()


main()
