"""Runs test files with pytest; exit 77 (skipped, to CTest) when the interpreter lacks a package, or the machine a shared library.

    run.py [--needs=PACKAGE ...] [--library=NAME ...] FILE.py [pytest's own arguments]: files lie beside this one or have a whole path."""
import ctypes.util
import importlib.util
import os
import sys


def named(option):
    return [a[len(option):] for a in sys.argv[1:] if a.startswith(option)]


missing = [m for m in ("pytest", "numpy", "scipy", "nibabel", "jsonschema", "surface_distance", *named("--needs="))
           if importlib.util.find_spec(m) is None]
missing += [f"lib{name}" for name in named("--library=") if not ctypes.util.find_library(name)]
if missing:
    print("skipped: there is no", ", ".join(missing))
    sys.exit(77)

import pytest  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))
code = pytest.main(["-q", "-p", "no:cacheprovider", "-rs", "--rootdir", here]
                   + [os.path.join(here, a) if a.endswith(".py") else a for a in sys.argv[1:] if not a.startswith(("--needs=", "--library="))])
sys.exit(int(code))
