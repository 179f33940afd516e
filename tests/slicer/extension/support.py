"""What the tests of the extension share: its folders, a process adapter without Qt, the sample scan as Slicer would write it."""
import os
import selectors
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import nibabel
import nrrd
import numpy as np

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
EXTENSION = os.path.join(ROOT, "gui-plugin", "SlicerVoxMamba")
MODULE = os.path.join(EXTENSION, "VoxMamba")
SAMPLE = os.path.join(ROOT, "sample-data", "hippocampus_380.nii.gz")
XML = os.path.join(EXTENSION, "VoxMambaSegment", "VoxMambaSegment.xml")
SEGMENT = os.environ.get("VOXMAMBA_SEGMENT", os.path.join(ROOT, "build/release/cli-modules/VoxMambaSegment"))
PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(ROOT, "build/release/cli/voxmamba"))
DICOM_HELPER = os.environ.get("VOXMAMBA_DICOM_HELPER", "")
sys.path.insert(0, MODULE)


def environment(**more):
    """The CPU's results, whatever the machine has, with the models of the source."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env.update(CUDA_VISIBLE_DEVICES="", VOXMAMBA_MODELS=os.path.join(ROOT, "models"), **more)
    return env


class Process:
    """The adapter of Runner.Run over subprocess. pump() takes what has come; nothing happens between two calls of it."""

    def start(self, program, arguments, environment, folder, on_stdout, on_stderr, on_end):
        self.arguments, self.folder = arguments, folder
        self._on_end = on_end
        self.child = None
        try:
            self.child = subprocess.Popen([program, *arguments], env=environment, cwd=folder, stdin=subprocess.DEVNULL,
                                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            self._pending = (None, f"not started: {error}")
            return
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.child.stdout, selectors.EVENT_READ, on_stdout)
        self._selector.register(self.child.stderr, selectors.EVENT_READ, on_stderr)

    def kill(self):
        if self.child is not None:
            self.child.kill()

    def wait(self, milliseconds):
        self.pump_to_end(milliseconds / 1000)

    def pump(self):
        """True when the end was told."""
        if self.child is None:
            self._on_end(*self._pending)
            return True
        if self._selector.get_map():
            for key, _ in self._selector.select(timeout=1):
                data = os.read(key.fileobj.fileno(), 65536)
                if data:
                    key.data(data)
                else:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
            return False
        code = self.child.wait()
        self._on_end(None if code < 0 else code, "killed" if code < 0 else "")
        return True

    def pump_to_end(self, seconds=300):
        deadline = time.monotonic() + seconds
        while not self.pump():
            assert time.monotonic() < deadline, "the process does not end"


class Heard:
    """Takes down what a run tells."""

    def __init__(self):
        self.events, self.outcomes, self.results = [], [], []

    def event(self, event):
        self.events.append(event)

    def result(self, files, returned):
        self.results.append((files, returned))

    def end(self, outcome):
        self.outcomes.append(outcome)

    def values(self, kind):
        return [event.value for event in self.events if event.kind == kind]


def sample():
    """The sample scan: (voxels, 4x4 RAS affine)."""
    image = nibabel.load(SAMPLE)
    return np.asarray(image.dataobj), image.affine


def write_nrrd(path, data=None, affine=None):
    """data (the sample scan if None) as Slicer writes a volume: uncompressed NRRD in LPS, all digits of a double."""
    if data is None:
        data, affine = sample()
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    nrrd.write(path, np.ascontiguousarray(data), {
        "space": "left-posterior-superior", "encoding": "raw", "kinds": ["domain"] * 3,
        "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]})


def parameters():
    """The parameters of the command-line module's description, in order: (kind, {tag: text}, constraints, choices)."""
    found = []
    for group in ElementTree.parse(XML).getroot().iter("parameters"):
        for each in group:
            if each.tag in ("label", "description"):
                continue
            texts = {child.tag: child.text or "" for child in each}
            constraints = {child.tag: float(child.text) for child in each.find("constraints") or ()}
            found.append((each.tag, texts, constraints, [child.text for child in each.findall("element")]))
    return found
