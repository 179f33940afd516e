"""Runs one test file with pytest; exit 77 (skipped, to CTest) when the interpreter lacks a package that the file names in a line
"# needs: a b"."""
import importlib.util
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
path = os.path.join(here, sys.argv[1])
with open(path, encoding="utf-8") as file:
    needs = [word for line in file if line.startswith("# needs: ") for word in line.split()[2:]]
missing = [m for m in ["pytest", "numpy", "nibabel", "nrrd", *needs] if importlib.util.find_spec(m) is None]
if missing:
    print("skipped: this Python lacks", ", ".join(missing))
    sys.exit(77)

import pytest  # noqa: E402

sys.exit(int(pytest.main(["-q", "-p", "no:cacheprovider", "-rs", "--rootdir", here, path, *sys.argv[2:]])))
