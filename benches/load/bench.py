#!/usr/bin/env python3
"""The harness's bench.py with our gateway among its peers. Same arguments."""
import os, runpy, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers"))
sys.dont_write_bytecode = True
sys.path[:0] = [HARNESS, HERE]

import ours

if "--peers" in sys.argv:
    ours.add(sys.argv[sys.argv.index("--peers") + 1].split(","))
sys.argv[0] = os.path.join(HARNESS, "bench.py")
runpy.run_path(sys.argv[0], run_name="__main__")
