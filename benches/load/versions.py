#!/usr/bin/env python3
"""versions.py begin|end: what is measured, and on what; at the end, when that was and how busy the machine is by then.

TREE is what `git describe --always --dirty` said of the tree when the run began, BUILT_HERE is set if the run built the binary from it.
"""
import hashlib, os, platform, re, subprocess, sys, time


def first_number(text):
    # `OpenSSH_9.2p1 …, OpenSSL 3.0.22`: an underscore is no boundary of words. What follows a colon at once is a time.
    found = re.search(r"(?<![\d.:])\d+\.\d+(\.\d+|p\d+)?", text)
    return found.group(0) if found else text.strip().splitlines()[0] if text.strip() else "?"


def binary(path):
    """The build's own version tells nothing of its commit; its digest tells builds apart."""
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    tree = os.environ.get("TREE", "unknown")
    state = f"{tree.removesuffix('-dirty')}{' with uncommitted changes' if tree.endswith('-dirty') else ''}"
    made = f"built from commit {state}" if os.environ.get("BUILT_HERE") else f"built beforehand; commit of the tree: {state}"
    return f"sluicegate {version([path, '--version'])} (SHA-256 {digest}…, {made})"


def version(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return first_number(done.stdout + done.stderr)


def busy(when):
    return f"{when} {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at a load average of {os.getloadavg()[0]:.1f}"


def begin():
    root = os.environ["PEERS_ROOT"]
    print(binary(os.environ["SLUICEGATE"]))
    for name, command in [
        ("Traffic Server", ["/usr/bin/traffic_server", "-V"]),
        ("squid", ["squid", "-v"]),
        ("Envoy", [f"{root}/bin/envoy", "--version"]),
        ("tinyproxy", ["tinyproxy", "-v"]),
        ("Apache", ["apache2", "-v"]),
        ("HAProxy", ["haproxy", "-v"]),
        ("stunnel", ["stunnel4", "-version"]),
        ("OpenSSH", ["ssh", "-V"]),
        ("rathole", [f"{root}/cargo/bin/rathole", "--version"]),
        ("bore", [f"{root}/cargo/bin/bore", "--version"]),
        ("nginx (origin and peer)", ["nginx", "-v"]),
    ]:
        found = version(command)
        if found:
            print(f"{name} {found}")
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    print(f"{os.cpu_count()} CPUs of {cpu}")
    print(f"Linux {platform.release().split('-')[0]}")
    print(busy("begun"))


if sys.argv[1:] == ["begin"]:
    begin()
elif sys.argv[1:] == ["end"]:
    print(busy("ended"))
else:
    sys.exit(__doc__)
