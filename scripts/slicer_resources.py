#!/usr/bin/env python3
"""Makes what 3D Slicer needs to know of the shipped models' labels: colour tables and terminologies of the extension.

    scripts/slicer_resources.py            writes them for every models/*.safetensors, and removes those of models that are gone
    scripts/slicer_resources.py --check    writes nothing; exit 1 names each file that is not what would be written

Needs Python 3.9 and nothing else. A test (slicer.mrml_resources) runs --check.
"""
import argparse
import json
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULE = ROOT / "gui-plugin/SlicerVoxMamba/VoxMamba"
sys.path.insert(0, str(MODULE))
sys.dont_write_bytecode = True
from VoxMambaLib import Labels  # noqa: E402

FOLDERS = ("Colors", "Terminologies")


def recipe(path):
    """The recipe in a model file (models/FORMAT.md)."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return json.loads(header["__metadata__"]["voxmamba"])


def resources(models):
    """File name below Resources -> text, of all models in a folder."""
    files = {}
    for path in sorted(models.glob("*.safetensors")):
        value = recipe(path)
        name, labels = value["name"], value["labels"]
        files[f"Colors/VoxMamba-{name}.csv"] = Labels.color_table_csv(labels)
        files[f"Colors/VoxMamba-{name}.ctbl"] = Labels.color_table_ctbl(labels)
        files[f"Terminologies/VoxMamba-{name}.term.json"] = Labels.terminology(name, labels)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "models", help="folder of the models")
    parser.add_argument("--output", type=pathlib.Path, default=MODULE / "Resources", help="folder that holds " + ", ".join(FOLDERS))
    args = parser.parse_args()

    wanted = resources(args.models)
    there = {str(path.relative_to(args.output)) for folder in FOLDERS for path in (args.output / folder).glob("VoxMamba-*")}
    differ = [name for name, text in wanted.items()
              if name not in there or (args.output / name).read_bytes() != text.encode()]
    stale = sorted(there - set(wanted))
    if args.check:
        for name in differ + stale:
            print(f"{name}: not what the models' recipes make of it (run scripts/slicer_resources.py)", file=sys.stderr)
        return 1 if differ or stale else 0
    for name in differ:
        path = args.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[name].encode())
        print(f"written: {name}")
    for name in stale:
        (args.output / name).unlink()
        print(f"removed: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
