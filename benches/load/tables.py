#!/usr/bin/env python3
"""tables.py RESULTS DOCUMENT: the run's tables, written between the marks of the document."""
import json, os, re, statistics, sys
from collections import defaultdict

import plots

BEGIN, END = "<!-- peers: written by benches/peers -->", "<!-- /peers -->"

# label of the measurement, key, what it is, goal as a factor on the best peer (or an amount), and whose rows count.
ROWS = [
    ("New tunnel and one request, CPU s per 10,000", "conn32", "cpu_s_per_10k", "plain", ("ats", 0.75)),
    ("The same to the TLS listener", "conn32", "cpu_s_per_10k", "tls", ("envoy-tls", 0.5)),
    ("Request through an open tunnel, CPU µs", "req64", "cpu_us_per_req", "plain", ("best", 0.9)),
    ("Bulk, CPU s per GiB, 1 stream down", "bulk1down", "cpu_s_per_gib", "plain", ("best", 0.75)),
    ("Bulk, CPU s per GiB, 8 streams down", "bulk8down", "cpu_s_per_gib", "plain", ("best", 0.75)),
    ("Bulk, CPU s per GiB, 8 streams up", "bulk8up", "cpu_s_per_gib", "plain", ("best", 0.75)),
    ("Bulk, GiB/s, 1 stream down", "bulk1down", "gib_per_s", "plain", ("most", 1.0)),
    ("Bulk, GiB/s, 8 streams down", "bulk8down", "gib_per_s", "plain", ("most", 1.2)),
    ("Bulk to the TLS listener, CPU s per GiB, 1 stream down", "bulk1down", "cpu_s_per_gib", "tls", ("best", 0.9)),
    ("Bulk to the TLS listener, CPU s per GiB, 8 streams down", "bulk8down", "cpu_s_per_gib", "tls", ("best", 0.9)),
    ("Bulk to the TLS listener, CPU s per GiB, 8 streams up", "bulk8up", "cpu_s_per_gib", "tls", ("best", 0.9)),
    ("Idle tunnel after 1 KiB, KiB", "idle1k", "rss_kib_per_conn", "plain", ("amount", 4)),
    ("Idle tunnel after 256 KiB, KiB", "idle256k", "rss_kib_per_conn", "plain", ("amount", 4)),
    ("Idle tunnel through TLS after 1 KiB, KiB", "idle1k", "rss_kib_per_conn", "tls", ("amount", 12)),
    ("Idle tunnel through TLS after 256 KiB, KiB", "idle256k", "rss_kib_per_conn", "tls", ("amount", 12)),
    ("Latency at 2,000 requests/s, p50 µs", "rate2k", "lat.p50_us", "plain", ("best", 1.0)),
    ("Latency at 2,000 requests/s, p99 µs", "rate2k", "lat.p99_us", "plain", ("best", 1.0)),
    ("Relay: new stream and one echo, CPU s per 10,000, TLS", "conn32", "cpu_s_per_10k", "relay-h2", ("amount", 1.3)),
    ("Relay: the same, QUIC", "conn32", "cpu_s_per_10k", "relay-quic", ("amount", 1.3)),
    ("Relay: 1 KiB echo on 64 connections, CPU µs, TLS", "req64", "cpu_us_per_req", "relay-h2", ("amount", 22)),
    ("Relay: the same, QUIC", "req64", "cpu_us_per_req", "relay-quic", ("amount", 22)),
    ("Relay: bulk, CPU s per GiB, 1 stream down, TLS", "bulk1down", "cpu_s_per_gib", "relay-h2", ("amount", 1.1)),
    ("Relay: bulk, CPU s per GiB, 8 streams down, TLS", "bulk8down", "cpu_s_per_gib", "relay-h2", ("amount", 1.1)),
    ("Relay: bulk, CPU s per GiB, 1 stream down, QUIC", "bulk1down", "cpu_s_per_gib", "relay-quic", ("amount", 2.4)),
    ("Relay: bulk, CPU s per GiB, 8 streams down, QUIC", "bulk8down", "cpu_s_per_gib", "relay-quic", ("amount", 2.4)),
    ("Relay: bulk, GiB/s, 1 stream down, TLS", "bulk1down", "gib_per_s", "relay-h2", ("most", 1.05)),
    ("Relay: bulk, GiB/s, 8 streams down, TLS", "bulk8down", "gib_per_s", "relay-h2", ("most", 1.05)),
    ("Relay: bulk, GiB/s, 1 stream down, QUIC", "bulk1down", "gib_per_s", "relay-quic", ("least", 0.6)),
    ("Relay: bulk, GiB/s, 8 streams down, QUIC", "bulk8down", "gib_per_s", "relay-quic", ("least", 0.6)),
    ("Relay: idle stream, KiB, both ends, TLS", "idle1k", "rss_kib_per_conn", "relay-h2", ("amount", 8)),
    ("Relay: the same, QUIC", "idle1k", "rss_kib_per_conn", "relay-quic", ("amount", 8)),
    ("Relay: 1 KiB echo on one connection, p50 µs, TLS", "req1", "lat.p50_us", "relay-h2", ("amount", 120)),
    ("Relay: the same, QUIC", "req1", "lat.p50_us", "relay-quic", ("amount", 120)),
]
OWN = {"plain": "ours", "tls": "ours-tls", "relay-h2": "relay-h2", "relay-quic": "relay-quic"}
NAIVE = {"plain": "naive-tokio", "tls": "naive-tokio-tls", "relay-h2": "naive-h2", "relay-quic": "naive-quic"}
# What carries a fixed port through an encrypted connection.
RELAYS = ("stunnel", "ssh", "haproxy-tls", "rathole", "wstunnel", "bore", "nginx")


def load(folder):
    values, errors = defaultdict(list), defaultdict(set)
    for name in ("egress", "idle", "relay"):
        try:
            lines = open(f"{folder}/{name}.jsonl").read().splitlines()
        except OSError:
            continue
        for line in lines:
            result = json.loads(line)
            peer, label = result["peer"], result.get("label")
            if result.get("error") or result.get("errors"):
                told = result.get("error") or result.get("first_error") or ""
                # Where its output is on the machine that measured is nobody else's concern.
                told = re.sub(r",? *(see )?/\S+", "", told)
                errors[peer].add(f"{label}: {told}"[:120])
            if result.get("error"):
                continue
            flat = {key: value for key, value in result.items() if isinstance(value, (int, float))}
            flat |= {f"lat.{key}": value for key, value in (result.get("lat") or {}).items()}
            for key, value in flat.items():
                values[peer, label, key].append(value)
    return values, errors


def figure(number):
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 10 else f"{number:.3g}"


def spread(values):
    if len(values) < 2:
        return figure(values[0])
    return f"{figure(statistics.median(values))} ({figure(min(values))} to {figure(max(values))})"


def is_peer(name, kind):
    if kind.startswith("relay") or name.startswith(RELAYS):
        return kind.startswith("relay") and name.startswith(RELAYS)
    return not name.startswith(("ours", "relay", "naive", "direct")) and name.endswith("-tls") == (kind == "tls")


def relays(name):
    return name.startswith((*RELAYS, "relay", "naive-h2", "naive-quic"))


def goals(values):
    yield "| what | ours, median (least to most) | best peer | ratio | naive | goal | met |"
    yield "|---|---|---|---|---|---|---|"
    for title, label, key, kind, (against, factor) in ROWS:
        own = values.get((OWN[kind], label, key))
        peers = {peer: statistics.median(v) for (peer, l, k), v in values.items() if (l, k) == (label, key) and is_peer(peer, kind)}
        if not own or not (peers or against in ("amount", "least")):
            continue
        best = (max if key == "gib_per_s" else min)(peers, key=peers.get) if peers else None
        naive = values.get((NAIVE[kind], label, key))
        mine = statistics.median(own)
        if against in ("amount", "least"):
            limit, goal = factor, f"{'≥' if against == 'least' else '≤'} {factor}"
        else:
            measure = best if against in ("best", "most") else against
            if measure not in peers:
                continue
            limit = peers[measure] * factor
            sign = "≥" if against == "most" else "≤"
            goal = f"{sign} {factor:g} × {measure.removesuffix('-tls')} = {figure(limit)}"
        met = mine >= limit if against in ("most", "least") else mine <= limit
        verdict = "yes" if met else f"no: {figure(mine / limit)} × the goal"
        beside = f"{best.removesuffix('-tls')} {figure(peers[best])} | {mine / peers[best]:.2f}" if best else "– | –"
        yield (f"| {title} | {spread(own)} | {beside} | "
               f"{figure(statistics.median(naive)) if naive else '–'} | {goal} | {verdict} |")


def table(values, title, columns):
    names = [peer for peer in dict.fromkeys(peer for peer, _, _ in values) if any((peer, label, key) in values for _, label, key in columns)]
    yield f"\n### {title}\n"
    yield "| | " + " | ".join(head for head, _, _ in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name in names:
        cells = [spread(values[name, label, key]) if (name, label, key) in values else "–" for _, label, key in columns]
        yield f"| {name} | " + " | ".join(cells) + " |"


def render(folder):
    values, errors = load(folder)
    try:
        versions = open(f"{folder}/versions.txt").read().strip().replace("\n", " · ")
    except OSError:
        versions = "versions not recorded"
    yield f"{versions}.\n"
    yield from goals(values)
    everything, values = values, {key: found for key, found in values.items() if not relays(key[0])}
    yield from table(values, "New tunnels, each with one request", [
        ("per second, 32 workers", "conn32", "per_s"), ("CPU s per 10,000", "conn32", "cpu_s_per_10k"),
        ("per second, 1 worker", "conn1", "per_s"), ("CPU s per 10,000, 1 worker", "conn1", "cpu_s_per_10k")])
    yield from table(values, "Requests through 64 open tunnels", [
        ("per second", "req64", "per_s"), ("CPU µs each", "req64", "cpu_us_per_req"),
        ("p50 µs at 2,000/s", "rate2k", "lat.p50_us"), ("p99 µs at 2,000/s", "rate2k", "lat.p99_us"), ("CPU µs at 2,000/s", "rate2k", "cpu_us_per_req")])
    for way, direction in (("down", "to the client"), ("up", "from the client")):
        yield from table(values, f"Bulk {direction}", [
            ("GiB/s, 1 stream", f"bulk1{way}", "gib_per_s"), ("CPU s/GiB", f"bulk1{way}", "cpu_s_per_gib"),
            ("GiB/s, 8 streams", f"bulk8{way}", "gib_per_s"), ("CPU s/GiB, 8", f"bulk8{way}", "cpu_s_per_gib")])
    yield from table(values, "Memory of idle tunnels", [
        ("tunnels", "idle1k", "conns"), ("KiB each after 1 KiB", "idle1k", "rss_kib_per_conn"), ("after 256 KiB (2,000 tunnels)", "idle256k", "rss_kib_per_conn"),
        ("KiB resident before any", "idle1k", "rss_before_kib"), ("KiB resident when all are closed", "idle1k", "rss_closed_kib")])
    values = {key: found for key, found in everything.items() if relays(key[0])}
    yield from table(values, "The relay, both ends together", [
        ("new stream and echo, CPU s per 10,000", "conn32", "cpu_s_per_10k"), ("1 KiB echo, 64 connections, CPU µs", "req64", "cpu_us_per_req"),
        ("1 KiB echo, 1 connection, p50 µs", "req1", "lat.p50_us"), ("idle stream, KiB", "idle1k", "rss_kib_per_conn")])
    for way in ("down", "up"):
        yield from table(values, f"The relay, bulk {way}", [
            ("GiB/s, 1 stream", f"bulk1{way}", "gib_per_s"), ("CPU s/GiB", f"bulk1{way}", "cpu_s_per_gib"),
            ("GiB/s, 8 streams", f"bulk8{way}", "gib_per_s"), ("CPU s/GiB, 8", f"bulk8{way}", "cpu_s_per_gib")])
    if errors:
        yield "\n### Errors seen\n"
        for name, seen in errors.items():
            yield f"- {name}: {'; '.join(sorted(seen))}"


GROWTH = [
    ("tunnels", "idle", "rss_kib_per_conn", "idle tunnel, KiB", "tunnels open"),
    ("tunnels", "req", "cpu_us_per_req", "request through an open tunnel, CPU µs", "tunnels open"),
    ("patterns", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "patterns of the session"),
    ("sessions", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "sessions"),
    ("threads", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "CPUs of the gateway"),
    ("threads", "conn", "per_s", "new tunnels per second", "CPUs of the gateway"),
    ("threads", "bulk", "cpu_s_per_gib", "bulk, 8 streams, CPU s per GiB", "CPUs of the gateway"),
    ("threads", "bulk", "gib_per_s", "bulk, 8 streams, GiB/s", "CPUs of the gateway"),
]


def growth(folder, document):
    """Tables of growth, and a plot of each beside the document."""
    try:
        lines = open(f"{folder}/growth.jsonl").read().splitlines()
    except OSError:
        return
    values = defaultdict(list)
    for line in lines:
        result = json.loads(line)
        for _, label, key, *_ in GROWTH:
            if result.get("label") == label and isinstance(result.get(key), (int, float)):
                values[result["series"], label, key, result["value"]].append(result[key])
    plots_folder = os.path.join(os.path.dirname(document), "plots")
    os.makedirs(plots_folder, exist_ok=True)
    yield "\n### What our own costs grow with\n"
    for series, label, key, title, axis in GROWTH:
        points = sorted((at, found) for (s, l, k, at), found in values.items() if (s, l, k) == (series, label, key))
        if not points:
            continue
        name = f"growth-{series}-{key.replace('_', '-')}.svg"
        with open(os.path.join(plots_folder, name), "w") as file:
            file.write(plots.line(title, axis, [(at, statistics.median(v), min(v), max(v)) for at, v in points]))
        yield f"| {axis} | " + " | ".join(f"{at:,}" for at, _ in points) + " |"
        yield "|---" * (len(points) + 1) + "|"
        yield f"| [{title}](plots/{name}) | " + " | ".join(spread(v) for _, v in points) + " |\n"


def main():
    folder, document = sys.argv[1:3]
    text = open(document).read()
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    with open(document, "w") as file:
        file.write(f"{before}{BEGIN}\n\n" + "\n".join([*render(folder), *growth(folder, document)]) + f"\n\n{END}{after}")


main()
