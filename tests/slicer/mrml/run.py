"""Runs one test file with pytest; exit 77 (skipped, to CTest) when the interpreter lacks a package, or the machine OSMesa."""
import ctypes.util
import importlib.util
import os
import sys

missing = [m for m in ("pytest", "numpy", "nibabel", "pydicom", "slicer", "trame_slicer", "slicerio", "PIL")
           if importlib.util.find_spec(m) is None]
if not ctypes.util.find_library("OSMesa"):
    missing.append("libosmesa6")
if missing:
    print("skipped: there is no", ", ".join(missing))
    sys.exit(77)

import pytest  # noqa: E402

here = os.path.dirname(os.path.abspath(__file__))
code = pytest.main(["-q", "-p", "no:cacheprovider", "-rs", "--rootdir", here]
                   + [os.path.join(here, a) if a.endswith(".py") else a for a in sys.argv[1:]])
sys.exit(int(code))
