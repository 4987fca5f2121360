#!/usr/bin/env python3
"""What `sluicegate run` costs: its start beside that of the plain command, and TCP out of its sandbox beside TCP without.

    cargo build --release --workspace --bins
    python3 benches/load/run_cost.py [--bin target/release] [--rounds 40]

Prints a table for docs/performance.md. Rounds of all variants are interleaved. CPU is that of every process of a variant.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

ECHO, BULK = b"\x01", b"\x02"
CONNECTIONS, PINGS, BYTES = 200, 3000, 512 << 20


def serve(listener):
    """One thread for each connection: what its first byte asks for."""

    def one(connection):
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kind = connection.recv(1)
            if kind == ECHO:
                while got := connection.recv(64):
                    connection.sendall(got)
            elif kind == BULK:
                block = bytes(1 << 20)
                for _ in range(BYTES // len(block)):
                    connection.sendall(block)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def client(host, port):
    """Inside or outside: new connections with one echo, echoes on one connection, and bulk."""

    def ask(connection, first=b""):
        connection.sendall(first + b"x")
        assert connection.recv(64)

    def connect():
        connection = socket.create_connection((host, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def timed(action, count):
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            action()
            times.append((time.perf_counter() - begun) * 1e6)
        return times

    def fresh():
        with connect() as connection:
            ask(connection, ECHO)

    fresh()
    opened = timed(fresh, CONNECTIONS)
    with connect() as connection:
        ask(connection, ECHO)
        pings = timed(lambda: ask(connection), PINGS)
    with connect() as connection:
        begun, taken, buffer = time.perf_counter(), 0, bytearray(1 << 20)
        connection.sendall(BULK)
        while got := connection.recv_into(buffer):
            taken += got
        assert taken == BYTES
        rate = taken / (1 << 30) / (time.perf_counter() - begun)
    percentile = lambda times, share: sorted(times)[int(len(times) * share)]
    print(json.dumps({
        "new connection and one echo, p50 µs": percentile(opened, 0.5),
        "new connection and one echo, p99 µs": percentile(opened, 0.99),
        "echo on an open one, p50 µs": percentile(pings, 0.5),
        "echo on an open one, p99 µs": percentile(pings, 0.99),
        "bulk, GiB/s": rate,
    }))


def spent(command):
    """Wall clock and CPU of a command with all it waited for, in ms."""
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    assert status == 0, (command, status)
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", default="target/release")
    arguments.add_argument("--rounds", type=int, default=40)
    arguments = arguments.parse_args()
    program = os.path.abspath(os.path.join(arguments.bin, "sluicegate"))
    starts = {"`true`": ["/bin/true"]}
    for net in ["none", "proxy", "transparent"]:
        starts[f"`sluicegate run --net {net} -- true`"] = [program, "run", "--net", net, "--", "/bin/true"]
    times = {name: [] for name in starts}
    for _ in range(arguments.rounds):
        for name, command in starts.items():
            times[name].append(spent(command))
    print(f"{arguments.rounds} rounds; load average {os.getloadavg()[0]:.1f}\n")
    print("| start to end | wall ms, median (least) | CPU ms, median (least) |\n|---|---|---|")
    for name, rounds in times.items():
        columns = [f"{statistics.median(column):.1f} ({min(column):.1f})" for column in zip(*rounds)]
        print(f"| {name} | {' | '.join(columns)} |")

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    own = [sys.executable, os.path.abspath(__file__), "client"]
    inside = [program, "run", "--resolve", "echo.test=127.0.0.1", "--allow", f"echo.test:{port}", "--"]
    ways = {"direct": [*own, "127.0.0.1", str(port)], "in `run`": [*inside, *own, "echo.test", str(port)]}
    found = {way: [] for way in ways}
    for _ in range(max(3, arguments.rounds // 8)):
        for way, command in ways.items():
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(json.loads(said))
    print(f"\n| TCP by name, {len(found['direct'])} rounds | {' | '.join(ways)} |\n|---|---|---|")
    for what in found["direct"][0]:
        middle = [statistics.median(one[what] for one in found[way]) for way in ways]
        print(f"| {what} | {' | '.join(f'{value:.3g}' for value in middle)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        client(sys.argv[2], int(sys.argv[3]))
    else:
        main()
