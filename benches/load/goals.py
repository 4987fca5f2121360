"""The table of goals: ours, the best peer of the same run, and whether the goal is met."""
import statistics

from results import figure, spread

BULK = [("down", 1), ("down", 8), ("up", 1), ("up", 8)]


def bulk(what, key, kind, goals, after=""):
    """A row for each direction, with one stream and with eight."""
    return [(f"{what}, {streams} stream{'s' if streams > 1 else ''} {way}{after}", f"bulk{streams}{way}", key, kind, goals[streams])
            for way, streams in BULK]


def both(goal):
    return {1: goal, 8: goal}


# What it is, label of the measurement, key, whose rows count, and the goal: a factor on a peer, on the best of them
# ("best" the least, "most" the most), or an amount (at most; "least": at least).
ROWS = [
    ("New tunnel and one request, CPU s per 10,000", "conn32", "cpu_s_per_10k", "plain", ("ats", 0.75)),
    ("The same to the TLS listener", "conn32", "cpu_s_per_10k", "tls", ("envoy-tls", 0.5)),
    ("Request through an open tunnel, CPU µs", "req64", "cpu_us_per_req", "plain", ("best", 0.9)),
    *bulk("Bulk, CPU s per GiB", "cpu_s_per_gib", "plain", both(("best", 0.75))),
    *bulk("Bulk, GiB/s", "gib_per_s", "plain", {1: ("most", 1.0), 8: ("most", 1.2)}),
    *bulk("Bulk to the TLS listener, CPU s per GiB", "cpu_s_per_gib", "tls", both(("best", 0.9))),
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
    *bulk("Relay: bulk, CPU s per GiB", "cpu_s_per_gib", "relay-h2", both(("amount", 1.1)), ", TLS"),
    *bulk("Relay: bulk, CPU s per GiB", "cpu_s_per_gib", "relay-quic", both(("amount", 2.4)), ", QUIC"),
    *bulk("Relay: bulk, GiB/s", "gib_per_s", "relay-h2", both(("most", 1.05)), ", TLS"),
    *bulk("Relay: bulk, GiB/s", "gib_per_s", "relay-quic", both(("least", 0.6)), ", QUIC"),
    ("Relay: idle stream, KiB, both ends, TLS", "idle1k", "rss_kib_per_conn", "relay-h2", ("amount", 8)),
    ("Relay: the same, QUIC", "idle1k", "rss_kib_per_conn", "relay-quic", ("amount", 8)),
    ("Relay: 1 KiB echo on one connection, p50 µs, TLS", "req1", "lat.p50_us", "relay-h2", ("amount", 120)),
    ("Relay: the same, QUIC", "req1", "lat.p50_us", "relay-quic", ("amount", 120)),
]
OWN = {"plain": "ours", "tls": "ours-tls", "relay-h2": "relay-h2", "relay-quic": "relay-quic"}
NAIVE = {"plain": "naive-tokio", "tls": "naive-tokio-tls", "relay-h2": "naive-h2", "relay-quic": "naive-quic"}
# No proxies: they forward one port, and are named beside the best, never as the best.
BARE = ("haproxy-plain",)
# Relays that carry their bytes in the plain: the best, but the best that encrypts is named too.
UNENCRYPTED = ("rathole", "bore")


def is_peer(name, kind):
    if name.startswith(("ours", "relay-", "naive", "direct")) or name in BARE:
        return False
    return kind.startswith("relay") or name.endswith("-tls") == (kind == "tls")


def short(name):
    """Of rows that are all of TLS listeners, the name need not say so; of relays it must."""
    return name.removesuffix("-tls") if name in ("squid-tls", "envoy-tls", "apache-tls") else name


def goals(results):
    yield "| what | ours, median (least to most) | best peer | ratio | naive | goal | met |"
    yield "|---|---|---|---|---|---|---|"
    for title, label, key, kind, goal in ROWS:
        values = results.values["relay" if kind.startswith("relay") else "egress"]
        medians = {peer: statistics.median(v) for (peer, l, k), v in values.items() if (l, k) == (label, key)}
        yield f"| {title} | " + " | ".join(row(values.get((OWN[kind], label, key)), medians, key, kind, goal)) + " |"


def row(own, medians, key, kind, goal):
    peers = {peer: value for peer, value in medians.items() if is_peer(peer, kind)}
    pick = max if key == "gib_per_s" else min
    best = pick(peers, key=peers.get) if peers else None
    mine = statistics.median(own) if own else None
    text, limit = aim(goal, peers, best)
    at_least = goal[0] in ("most", "least")
    if mine is None:
        met = "not measured"
    elif limit is None:
        met = "nobody to hold it against"
    else:
        # A peer whose work is not seen has a median of nothing.
        missed = f"no: {figure(mine / limit)} × the goal" if limit else "no"
        met = "yes" if (mine >= limit if at_least else mine <= limit) else missed
    naive = medians.get(NAIVE[kind])
    yield spread(own) if own else "–"
    yield beside(peers, best, medians, kind, pick)
    yield f"{mine / peers[best]:.2f}" if mine is not None and best and peers[best] else "–"
    yield figure(naive) if naive is not None else "–"
    yield text
    yield met


def aim(goal, peers, best):
    """The goal as it is written, and the figure that it comes to in this run, if whom it names was measured."""
    against, factor = goal
    sign = "≥" if against in ("most", "least") else "≤"
    if against in ("amount", "least"):
        return f"{sign} {factor}", factor
    measure = best if against in ("best", "most") else against
    if measure not in peers:
        return f"{sign} {factor:g} × {'the best' if against in ('best', 'most') else short(against)}", None
    limit = peers[measure] * factor
    return f"{sign} {factor:g} × {short(measure)} = {figure(limit)}", limit


def beside(peers, best, medians, kind, pick):
    if best is None:
        return "–"
    said = f"{short(best)} {figure(peers[best])}"
    if kind.startswith("relay") and best in UNENCRYPTED:
        encrypted = {peer: value for peer, value in peers.items() if peer not in UNENCRYPTED}
        if encrypted:
            next_best = pick(encrypted, key=encrypted.get)
            said += f" (in the plain; encrypted {next_best} {figure(encrypted[next_best])})"
    if kind == "plain":
        said += "".join(f" (bare forwarder {peer} {figure(medians[peer])})" for peer in BARE if peer in medians)
    return said
