#!/usr/bin/env python3
"""Make the committed goldens again with the real packages; with --compare only compare, and fail on a difference."""
import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITERS = [*sorted((ROOT / "tests" / "golden").glob("write_*_goldens.py")), ROOT / "models" / "reference" / "goldens.py"]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--compare", action="store_true")
options = ["--check"] if parser.parse_args().compare else []
failed = []
for writer in WRITERS:
    print(f"{writer.relative_to(ROOT)}", flush=True)
    if subprocess.run([sys.executable, writer, *options]).returncode != 0:
        failed.append(writer.name)
if failed:
    sys.exit(f"differs or failed: {', '.join(failed)}")
