"""What the tests of the MRML scene share: the program's results, and a segmentation node as plain Python."""
import os
import subprocess
import sys

import nibabel
import numpy as np

sys.dont_write_bytecode = True
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
MODULE = os.path.join(ROOT, "gui-plugin/SlicerVoxMamba/VoxMamba")
MODELS = os.path.join(ROOT, "models")
SAMPLE = os.path.join(ROOT, "sample-data/hippocampus_380.nii.gz")
PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(ROOT, "build/release/cli/voxmamba"))
sys.path[:0] = [MODULE, os.path.join(ROOT, "tests/cli")]

import slicer  # noqa: E402
import tiny_model  # noqa: E402
import vtk  # noqa: E402
from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402

BINARY_LABELMAP = "Binary labelmap"


def sct(code, meaning):
    return {"scheme": "SCT", "code": code, "meaning": meaning}


STRUCTURE = sct("123037004", "Anatomical Structure")
# Values out of order and beyond 8 and 15 bits; a name that is not ASCII; one with every character that formats separate fields
# by; one without codes; one that the model never finds.
LABELS = [
    {"value": 3, "name": "hippocampe antérieur", "rgb": [230, 120, 80], "category": STRUCTURE,
     "type": sct("5366008", "Hippocampus"), "modifier": sct("255549009", "Anterior")},
    {"value": 300, "name": "a, \"b\"; c\\d ^~| e", "rgb": [1, 2, 3], "category": STRUCTURE,
     "type": sct("45289007", "Parotid gland"), "modifier": sct("24028007", "Right")},
    {"value": 40000, "name": "without codes", "rgb": [0, 255, 0]},
    {"value": 7, "name": "never found", "rgb": [9, 80, 255], "category": STRUCTURE, "type": sct("91609006", "Mandible")},
]
EMPTY = 7


def write_model(path):
    """A model of LABELS that looks at brightness alone, and never finds the last."""
    recipe = tiny_model.recipe("brightness", labels=len(LABELS), patch=(16, 16, 16))
    recipe["labels"] = LABELS
    weights = tiny_model.brightness_tensors(recipe, [0.0, 0.4, 0.9, 1e6])
    return tiny_model.write(str(path), recipe, weights=weights)


def segment(*args):
    env = {**os.environ, "VOXMAMBA_MODELS": MODELS, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([PROGRAM, "segment", *map(str, args), "--overwrite", "-q"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("AddressSanitizer", "runtime error:"):
        assert word not in done.stderr, done.stderr


def mask(path):
    """Values, x first."""
    return np.asarray(nibabel.load(str(path)).dataobj)


def matrix(source):
    """4 x 4 of a vtkMatrix4x4."""
    return np.array([[source.GetElement(r, c) for c in range(4)] for r in range(4)])


def ijk_to_ras(volume):
    value = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(value)
    return matrix(value)


def image_to_world(image):
    value = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(value)
    return matrix(value)


def entry_of(segment):
    text = vtk.reference("")
    return str(text) if segment.GetTag("TerminologyEntry", text) else ""


class Segmentation:
    """A segmentation node's segments by label value, and its reference geometry."""

    def __init__(self, node):
        self.node, self.segmentation = node, node.GetSegmentation()
        text = self.segmentation.GetConversionParameter("Reference image geometry")
        self.reference = slicer.vtkOrientedImageData()
        assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, self.reference), text
        segments = [self.segmentation.GetNthSegment(i) for i in range(self.segmentation.GetNumberOfSegments())]
        self.by_value = {s.GetLabelValue(): s for s in segments}
        assert len(self.by_value) == len(segments)

    def reference_affine(self):
        return image_to_world(self.reference)

    def names(self):
        return {value: s.GetName() for value, s in self.by_value.items()}

    def colors(self):
        """0..255."""
        return {value: [round(255 * c, 3) for c in s.GetColor()] for value, s in self.by_value.items()}

    def entries(self):
        return {value: entry_of(s) for value, s in self.by_value.items()}

    def labelmap(self, value):
        return self.by_value[value].GetRepresentation(BINARY_LABELMAP)

    def voxels(self, value):
        """Where the segment is, on the reference geometry (x first)."""
        dims = self.reference.GetDimensions()
        labelmap = self.labelmap(value)
        if labelmap.IsEmpty():
            return np.zeros(dims, bool)
        out = slicer.vtkOrientedImageData()
        assert slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, self.reference, out, False)
        assert out.GetDimensions() == dims
        return vtk_to_numpy(out.GetPointData().GetScalars()).reshape(dims[::-1]).T == value

    def mask(self):
        """Label values on the reference geometry (x first)."""
        values = np.zeros(self.reference.GetDimensions(), np.uint16)
        for value in self.by_value:
            where = self.voxels(value)
            assert not values[where].any()
            values[where] = value
        return values


def save(node, path, crop):
    """As Slicer's "Save" does it; crop: to what the segments fill, as it does where the user asks for it."""
    node.AddDefaultStorageNode()
    storage = node.GetStorageNode()
    storage.SetCropToMinimumExtent(crop)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def save_volume(node, path):
    """As Slicer hands a volume to a command-line module."""
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
