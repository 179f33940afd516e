"""Where the programs of the extension are: beside the scripted module, by the layout of the extension.

    lib/Slicer-X.Y/qt-scripted-modules/VoxMamba.py      this module
    lib/Slicer-X.Y/cli-modules/VoxMambaSegment          the command-line module: one volume a process
    lib/Slicer-X.Y/bin/voxmamba                         lists the models
Nothing is looked up elsewhere, and no path is kept in a setting that a new version could contradict.
"""
import os
import sys
from typing import NamedTuple


class Programs(NamedTuple):
    segment: str
    voxmamba: str


class ProgramMissing(Exception):
    """Its text says what the user can do."""


def programs_of(module_folder):
    """module_folder: the folder of VoxMamba.py. ProgramMissing where one is not there or may not be run."""
    base = os.path.dirname(os.path.abspath(module_folder))
    ending = ".exe" if sys.platform == "win32" else ""
    found = Programs(os.path.join(base, "cli-modules", "VoxMambaSegment" + ending),
                     os.path.join(base, "bin", "voxmamba" + ending))
    for program in found:
        if not os.path.isfile(program):
            raise ProgramMissing(f"{program} is not there: this copy of the extension has no program in it. Install the package "
                                 "that was made for this system (so far: Linux on x86-64)")
        if not os.access(program, os.X_OK):
            raise ProgramMissing(f"{program} may not be run: unpack the extension with its permissions, or chmod +x it")
    return found
