#!/usr/bin/env python3
"""tables.py RESULTS DOCUMENT: the run's tables, written between the marks of the document; its plots in `plots` beside it, and
how the peers were configured in `performance-peers.md`."""
import os, statistics, sys

import configurations, plots
from goals import BARE, goals
from growth_tables import growth
from results import Results, lines, spread

BEGIN, END = "<!-- peers: written by benches/peers -->", "<!-- /peers -->"


def bulk(way):
    return [("GiB/s, 1 stream", f"bulk1{way}", "gib_per_s"), ("CPU s/GiB", f"bulk1{way}", "cpu_s_per_gib"),
            ("GiB/s, 8 streams", f"bulk8{way}", "gib_per_s"), ("CPU s/GiB, 8", f"bulk8{way}", "cpu_s_per_gib")]


# Group of peers, title, name of the plot, columns. What is plotted is all that can be compared.
TABLES = [
    ("egress", "New tunnels, each with one request", "tunnels", [
        ("per second, 32 workers", "conn32", "per_s"), ("CPU s per 10,000", "conn32", "cpu_s_per_10k"),
        ("per second, 1 worker", "conn1", "per_s"), ("CPU s per 10,000, 1 worker", "conn1", "cpu_s_per_10k")]),
    ("egress", "Requests through 64 open tunnels", "requests", [
        ("per second", "req64", "per_s"), ("CPU µs each", "req64", "cpu_us_per_req"),
        ("p50 µs at 2,000/s", "rate2k", "lat.p50_us"), ("p99 µs at 2,000/s", "rate2k", "lat.p99_us"), ("CPU µs at 2,000/s", "rate2k", "cpu_us_per_req")]),
    ("egress", "Bulk to the client", "bulk-down", bulk("down")),
    ("egress", "Bulk from the client", "bulk-up", bulk("up")),
    ("egress", "Memory of idle tunnels", "idle", [
        ("tunnels", "idle1k", "conns"), ("KiB each after 1 KiB", "idle1k", "rss_kib_per_conn"), ("after 256 KiB (2,000 tunnels)", "idle256k", "rss_kib_per_conn"),
        ("KiB resident before any", "idle1k", "rss_before_kib"), ("KiB resident when all are closed", "idle1k", "rss_closed_kib")]),
    ("relay", "The relay, both ends together", "relay", [
        ("new stream and echo, CPU s per 10,000", "conn32", "cpu_s_per_10k"), ("1 KiB echo, 64 connections, CPU µs", "req64", "cpu_us_per_req"),
        ("1 KiB echo, 1 connection, p50 µs", "req1", "lat.p50_us"), ("idle stream, KiB", "idle1k", "rss_kib_per_conn")]),
    ("relay", "The relay, bulk down", "relay-bulk-down", bulk("down")),
    ("relay", "The relay, bulk up", "relay-bulk-up", bulk("up")),
]
UNPLOTTED = ("conns", "rss_before_kib", "rss_closed_kib")
# A panel of a plot is narrower than a column of a table.
HEADS = {"new stream and echo, CPU s per 10,000": "new stream, CPU s/10,000", "1 KiB echo, 64 connections, CPU µs": "echo on 64, CPU µs",
         "1 KiB echo, 1 connection, p50 µs": "echo on 1, p50 µs", "after 256 KiB (2,000 tunnels)": "after 256 KiB"}


def table(values, title, plot, columns, folder):
    names = [peer for peer in dict.fromkeys(peer for peer, _, _ in values) if any((peer, label, key) in values for _, label, key in columns)]
    if not names:
        return
    yield f"\n### {title}\n"
    yield "| | " + " | ".join(head for head, _, _ in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name in names:
        cells = [spread(values[name, label, key]) if (name, label, key) in values else "–" for _, label, key in columns]
        yield f"| {name} | " + " | ".join(cells) + " |"
    panels = []
    for head, label, key in columns:
        if key not in UNPLOTTED:
            found = {name: values[name, label, key] for name in names if (name, label, key) in values}
            panels.append((HEADS.get(head, head), {name: (statistics.median(v), min(v), max(v)) for name, v in found.items()}))
    plots.write(f"{folder}/{plot}.svg", plots.bars(title, names, panels))
    yield f"\n![{title}: ours dark, peers grey, what is no peer pale](plots/{plot}.svg)"


def ran(results, folder):
    """When and where, of what, and how much of the machine others had."""
    versions = lines(f"{folder}/versions.txt") or ["versions not recorded"]
    yield " · ".join(versions) + "."
    yield f"Of {results.measured:,.0f} s in which something was measured, other guests of the processor took {results.steal:,.1f} CPU s (steal)."
    if results.stolen:
        yield (f"{results.stolen} of {results.rounds} measurements had others on more than a tenth of a processor: they are in no figure where another round of the same remains"
               + (f". Only such are there of {', '.join(results.only_stolen)}." if results.only_stolen else "."))
    yield ""
    recorded = configurations.recorded(folder)
    missing = [name for name, found in recorded.items() if found is None]
    if missing:
        yield f"Asked for, but not installed where this ran: {', '.join(missing)}.\n"


def render(results, folder, plots_folder):
    yield from ran(results, folder)
    yield from goals(results)
    for group, *described in TABLES:
        yield from table(results.values[group], *described, plots_folder)
        if described[1] == "idle" and any(peer in BARE for peer, _, _ in results.values[group]):
            yield f"\n{', '.join(BARE)} is no proxy but a bare forwarder of one port: it reads no request, knows nobody and keeps no log."
    seen = list(results.errors())
    if seen:
        yield "\n### Errors seen\n"
        yield "Rounds in which something failed are in no figure.\n"
        yield from seen
    yield from growth(results, plots_folder)


def main():
    folder, document = sys.argv[1:3]
    beside = os.path.dirname(os.path.abspath(document))
    plots_folder = os.path.join(beside, "plots")
    os.makedirs(plots_folder, exist_ok=True)
    with open(document, encoding="utf-8") as file:
        text = file.read()
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    written = "\n".join(render(Results(folder), folder, plots_folder)).rstrip()
    with open(document, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{written}\n\n{END}{after}")
    page = configurations.page(configurations.recorded(folder))
    if page:
        with open(os.path.join(beside, "performance-peers.md"), "w", encoding="utf-8") as file:
            file.write(page)


main()
