#!/usr/bin/env python3
"""instructions.py [SECONDS]: what one new tunnel with one request takes of the gateway's own instructions (callgrind), and of
system calls (strace). Neither depends on what else the machine does.

Our configurations as in ours.py without probes of itself, four workers; for instructions the first tunnels are not counted.
"""
import glob, json, os, re, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import ours, peers as P

TARGET = f"127.0.0.1:{P.HTTP}"


def tunnels(run, seconds):
    argv = [P.PGEN, "conn", *run.args(TARGET), "--secs", str(seconds), "--workers", "4", "--proto", "http"]
    done = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    if done["errors"]:
        raise SystemExit(f"errors: {done}")
    return done["cycle"]["n"]


def below(name, argv):
    """The peer `name`, its gateway run by `argv`."""
    peer = P.PEERS[name]
    P.PEERS["counted"] = {**peer, "cmds": [[*argv, *peer["cmds"][0]]]}
    return P.start("counted")


def instructions(name, seconds):
    out = f"{P.RUN}/callgrind.{name}"
    for old in glob.glob(f"{out}*"):
        os.remove(old)
    run = below(name, ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"])
    control = lambda *arguments: subprocess.run(["callgrind_control", *arguments, str(run.pids[0])], check=True, stdout=subprocess.DEVNULL)
    try:
        tunnels(run, 1)
        control("-i", "on")
        counted = tunnels(run, seconds)
        control("-i", "off")
        control("-d")
        time.sleep(1)
        total = 0
        for path in glob.glob(f"{out}*"):
            found = re.findall(r"^(?:summary|totals): (\d+)", open(path).read(), re.M)
            total += max(map(int, found), default=0)
        return total / counted, counted
    finally:
        run.stop()


def calls(name, seconds):
    out = f"{P.RUN}/strace.{name}"
    run = below(name, ["strace", "-f", "-c", "-o", out, "-D"])
    try:
        counted = tunnels(run, seconds)
    finally:
        run.stop()
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", open(out).read(), re.M)
    each = {call: int(number) / counted for number, call in rows if call != "total"}
    return sum(each.values()), {call: number for call, number in each.items() if number >= 0.05}


def main():
    seconds = float((sys.argv[1:] or ["3"])[0])
    quiet = ours.config(ours.OPAQUE) + "probe: {interval: 0}\n"
    P.PEERS["ours"], P.PEERS["ours-tls"] = ours.peer("ours", quiet), ours.peer("ours-tls", quiet, tls=True)
    origins = P.origins()
    try:
        for name in ("ours", "ours-tls"):
            each, counted = instructions(name, seconds)
            print(f"{name}: {each:,.0f} instructions in user space each, over {counted:,} tunnels", flush=True)
        total, each = calls("ours", seconds)
        listed = ", ".join(f"{call} {number:.1f}" for call, number in sorted(each.items(), key=lambda item: -item[1]))
        print(f"ours: {total:.1f} system calls each: {listed}")
    finally:
        origins.stop()


main()
