#!/usr/bin/env python3
"""The harness's bench.py with our relay among its peers: `relay-quic`, `relay-h2`. Same arguments.

HARNESS is the directory of the harness (default: ../shared/peers beside the repository), SLUICEGATE_BIN_DIR that of our
binaries (default: target/release); the harness's own variables are PEERS_ROOT, PGEN, NRELAY and AHEAD.
"""
import os, runpy, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import relay

if "--peers" in sys.argv:
    relay.add(sys.argv[sys.argv.index("--peers") + 1].split(","))
sys.argv[0] = os.path.join(HARNESS, "bench.py")
runpy.run_path(sys.argv[0], run_name="__main__")
