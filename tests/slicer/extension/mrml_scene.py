"""Volumes in a real MRML scene (slicer-core, from PyPI: 3D Slicer's own C++ without Qt)."""
import os
import time

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")  # before VTK is loaded

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk

import support

_KINDS = {np.dtype(np.uint8): vtk.VTK_UNSIGNED_CHAR, np.dtype(np.int16): vtk.VTK_SHORT, np.dtype(np.float32): vtk.VTK_FLOAT,
          np.dtype(np.float64): vtk.VTK_DOUBLE}


def matrix(values):
    made = vtk.vtkMatrix4x4()
    for i in range(4):
        for j in range(4):
            made.SetElement(i, j, values[i][j])
    return made


def add_volume(scene, name="scan", data=None, affine=None, kind="vtkMRMLScalarVolumeNode", components=1):
    """A volume node with data (the sample scan if None; x, y, z) and its RAS affine."""
    if data is None:
        data, affine = support.sample()
        data = np.asarray(data).astype(np.uint8) if data.max() < 256 else np.asarray(data).astype(np.float32)
    image = vtk.vtkImageData()
    image.SetDimensions(*data.shape)
    flat = np.repeat(data.transpose(2, 1, 0).ravel()[:, None], components, axis=1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(flat), deep=True, array_type=_KINDS[data.dtype]))
    node = scene.AddNewNodeByClass(kind, name)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix(np.eye(4) if affine is None else affine))
    return node


class Runs:
    """Starts a Segmenter's runs and pumps their processes, as Qt's event loop would."""

    def __init__(self, scene, temporary, program=support.SEGMENT):
        from VoxMambaLib.Segmenter import Segmenter
        self.processes, self.events, self.results, self.ends = [], [], [], []
        self.segmenter = Segmenter(scene, program, self.make, support.environment(), str(temporary))

    def make(self):
        self.processes.append(support.Process())
        return self.processes[-1]

    def start(self, volumes, settings):
        self.segmenter.start(volumes, settings, lambda *each: self.events.append(each), lambda *each: self.results.append(each),
                             self.ends.append)

    def pump(self, during=None, seconds=300):
        deadline = time.monotonic() + seconds
        while self.segmenter.running:
            assert time.monotonic() < deadline
            self.processes[-1].pump()
            if during and self.segmenter.running:
                during()
        return self.ends[0]
