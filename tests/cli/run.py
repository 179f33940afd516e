"""Runs test files with pytest; exit 77 (skipped, to CTest) when the interpreter lacks a package.

    run.py [--needs=PACKAGE ...] FILE.py [pytest's own arguments]: files lie beside this one or have a whole path."""
import importlib.util
import os
import sys

needs = [a.split("=")[1] for a in sys.argv[1:] if a.startswith("--needs=")]
missing = [m for m in ("pytest", "numpy", "scipy", "nibabel", "jsonschema", "surface_distance", *needs)
           if importlib.util.find_spec(m) is None]
if missing:
    print("skipped: this Python lacks", ", ".join(missing))
    sys.exit(77)

import pytest  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))
code = pytest.main(["-q", "-p", "no:cacheprovider", "-rs", "--rootdir", here]
                   + [os.path.join(here, a) if a.endswith(".py") else a for a in sys.argv[1:] if not a.startswith("--needs=")])
sys.exit(int(code))
