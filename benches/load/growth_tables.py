"""Tables of growth, and a plot of each beside the document."""
import statistics

import plots
from results import spread

TUNNEL = [("idle", "rss_kib_per_conn", "idle {}, KiB", "{}s open"), ("req", "cpu_us_per_req", "request through an open {}, CPU µs", "{}s open")]
GROWTH = [
    *((series, label, key, title.format(what) + how, axis.format(what.split()[-1]))
      for series, what, how in (("tunnels", "tunnel", ""), ("tunnels-tls", "tunnel", ", TLS listener"),
                                ("relay-h2", "relay stream", ", both ends, TLS"), ("relay-quic", "relay stream", ", both ends, QUIC"))
      for label, key, title, axis in TUNNEL),
    ("patterns", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "patterns of the session"),
    ("sessions", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "sessions"),
    ("threads", "conn", "cpu_s_per_10k", "new tunnel, CPU s per 10,000", "CPUs of the gateway"),
    ("threads", "conn", "per_s", "new tunnels per second", "CPUs of the gateway"),
    ("threads", "bulk", "cpu_s_per_gib", "bulk, 8 streams, CPU s per GiB", "CPUs of the gateway"),
    ("threads", "bulk", "gib_per_s", "bulk, 8 streams, GiB/s", "CPUs of the gateway"),
]


def growth(results, folder):
    """Tables whose plots go into `folder`, which the document knows as `plots`."""
    values = results.values["growth"]
    if not values:
        return
    yield "\n### What our own costs grow with\n"
    for series, label, key, title, axis in GROWTH:
        points = sorted((at, found) for (s, l, k, at), found in values.items() if (s, l, k) == (series, label, key))
        if not points:
            continue
        name = f"growth-{series}-{key.replace('_', '-')}.svg"
        plots.write(f"{folder}/{name}", plots.line(title, axis, [(at, statistics.median(v), min(v), max(v)) for at, v in points]))
        yield f"| {axis} | " + " | ".join(f"{at:,}" for at, _ in points) + " |"
        yield "|---" * (len(points) + 1) + "|"
        yield f"| {title} | " + " | ".join(spread(v) for _, v in points) + " |\n"
        yield f"![{title}](plots/{name})\n"
