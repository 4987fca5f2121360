#!/usr/bin/env python3
"""instructions.py [SECONDS]: what one new tunnel with one request takes of the gateway's own instructions (callgrind), and of
system calls (strace). Neither depends on what else the machine does.

Our configurations as in ours.py without probes of itself, four workers. For instructions the first second is left out; for system calls a
gateway that is started and stopped without a tunnel is subtracted.
"""
import glob, json, os, re, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import ours, peers as P

TARGET = f"127.0.0.1:{P.HTTP}"


def logged(run):
    with open(f"{run.r}/access.log", "rb") as file:
        return sum(1 for _ in file)


def tunnels(run, seconds):
    """How many there were, by the gateway's own log: the generator leaves out those that it warms up with, and the last ones."""
    before = logged(run)
    argv = [P.PGEN, "conn", *run.args(TARGET), "--secs", str(seconds), "--workers", "4", "--proto", "http"]
    done = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    if done["errors"]:
        raise SystemExit(f"errors: {done}")
    # A tunnel is logged when it is over.
    seen = None
    while seen != (seen := logged(run)):
        time.sleep(1)
    if seen - before < done["cycle"]["n"]:
        raise SystemExit(f"{seen - before} tunnels in the log of {done['cycle']['n']}")
    return seen - before


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


def traced(name, seconds):
    """Tunnels, and how often each system call was made from the gateway's start to its end."""
    out = f"{P.RUN}/strace.{name}"
    # Not in the gateway's process group, which is killed at the end: the table is written after that.
    run = below(name, ["strace", "-f", "-c", "-o", out, "-DD"])
    try:
        counted = tunnels(run, seconds) if seconds else 0
    finally:
        run.stop()
    for _ in range(100):
        with open(out) as file:
            table = file.read()
        if table.endswith(" total\n"):
            break
        time.sleep(0.1)
    else:
        raise SystemExit(f"strace has not written {out}")
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", table, re.M)
    return counted, {call: int(number) for number, call in rows if call != "total"}


def calls(name, seconds):
    _, without = traced(name, 0)
    counted, made = traced(name, seconds)
    each = {call: (number - without.get(call, 0)) / counted for call, number in made.items()}
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
