#!/usr/bin/env python3
"""What was measured, and on what."""
import os, platform, re, subprocess

ROOT = os.environ["PEERS_ROOT"]
COMMANDS = [
    ("sluicegate", [os.environ["SLUICEGATE"], "--version"]),
    ("commit", ["git", "-C", os.path.dirname(os.path.abspath(__file__)), "rev-parse", "--short", "HEAD"]),
    ("Traffic Server", ["/usr/bin/traffic_server", "-V"]),
    ("squid", ["squid", "-v"]),
    ("Envoy", [f"{ROOT}/bin/envoy", "--version"]),
    ("tinyproxy", ["tinyproxy", "-v"]),
    ("Apache", ["apache2", "-v"]),
    ("HAProxy", ["haproxy", "-v"]),
    ("stunnel", ["stunnel4", "-version"]),
    ("OpenSSH", ["ssh", "-V"]),
    ("rathole", [f"{ROOT}/cargo/bin/rathole", "--version"]),
    ("bore", [f"{ROOT}/cargo/bin/bore", "--version"]),
    ("nginx (origin)", ["nginx", "-v"]),
]


def first_number(text):
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found.group(0) if found else text.strip().splitlines()[0] if text.strip() else "?"


for name, command in COMMANDS:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        continue
    text = done.stdout + done.stderr
    print(f"{name} {text.strip() if name == 'commit' else first_number(text)}")
cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
print(f"{os.cpu_count()} CPUs of {cpu}")
print(f"Linux {platform.release().split('-')[0]}")
print(f"load average at the end {os.getloadavg()[0]:.0f}")
