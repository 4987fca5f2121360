"""A package index of one package, as PEP 503 has it: make_index.py DIRECTORY"""

import pathlib
import sys
import zipfile

NAME = "sluice_demo-1.0-py3-none-any.whl"
FILES = {
    "sluice_demo.py": "WORD = 'through the gate'\n",
    "sluice_demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: sluice-demo\nVersion: 1.0\n",
    "sluice_demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}

directory = pathlib.Path(sys.argv[1]) / "simple" / "sluice-demo"
directory.mkdir(parents=True)
with zipfile.ZipFile(directory / NAME, "w") as wheel:
    for path, text in FILES.items():
        wheel.writestr(path, text)
    lines = [f"{path},," for path in FILES]
    wheel.writestr("sluice_demo-1.0.dist-info/RECORD", "\n".join(lines) + "\nsluice_demo-1.0.dist-info/RECORD,,\n")
