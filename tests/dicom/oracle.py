"""What pydicom reads from DICOM files: frames with their own geometry and slope, and the volume they make."""
import os
import struct
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import pydicom
    from pydicom.pixels import pixel_array
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore")

DUMP = os.environ.get("VOXMAMBA_DUMP", "dump_volume")
PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", "voxmamba")


class Frame:
    """pixels [row][column] with slope applied; position and directions in LPS mm."""

    def __init__(self, dataset, index, pixels, item=None, shared=None):
        def group(sequence, keyword):
            for source in (item, shared):
                if source is not None and sequence in source and len(source[sequence].value):
                    return source[sequence].value[0].get(keyword)
            return None

        def attribute(sequence, keyword):
            return dataset.get(keyword) if item is None else group(sequence, keyword)

        self.index = index
        self.position = np.array(attribute("PlanePositionSequence", "ImagePositionPatient"), float)
        orientation = np.array(attribute("PlaneOrientationSequence", "ImageOrientationPatient"), float)
        spacing = np.array(attribute("PixelMeasuresSequence", "PixelSpacing"), float)
        assert self.position.shape == (3,) and orientation.shape == (6,) and spacing.shape == (2,)
        self.row, self.column = orientation[:3], orientation[3:]
        self.row /= np.linalg.norm(self.row)
        self.column /= np.linalg.norm(self.column)
        self.spacing = (spacing[1], spacing[0])  # along a row, along a column
        transform = "PixelValueTransformationSequence"
        slope, intercept = attribute(transform, "RescaleSlope"), attribute(transform, "RescaleIntercept")
        self.slope = 1.0 if slope in (None, "") else float(slope)
        self.intercept = 0.0 if intercept in (None, "") else float(intercept)
        self.pixels = (stored(dataset, pixels) * self.slope + self.intercept).astype(np.float32)
        types = [group(s, "FrameType") for s in
                 ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")]
        self.type = dataset.get("ImageType") if item is None else next((t for t in types if t), None)

    @property
    def normal(self):
        return np.cross(self.row, self.column)


def stored(dataset, pixels):
    """PS3.5 8.1.1: only the stored bits count (pydicom gives the whole word)."""
    bits, high = dataset.BitsStored, dataset.get("HighBit", dataset.BitsStored - 1)
    value = (pixels.astype(np.int64) >> (high + 1 - bits)) & ((1 << bits) - 1)
    if dataset.get("PixelRepresentation", 0) == 1:
        value = np.where(value >> (bits - 1), value - (1 << bits), value)
    return value.astype(float)


def frames_of(path):
    dataset = pydicom.dcmread(path)
    pixels = pixel_array(dataset)
    number = int(dataset.get("NumberOfFrames") or 1)
    pixels = pixels.reshape((number,) + pixels.shape[-2:])
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        assert number == 1
        return [Frame(dataset, 0, pixels[0])]
    shared = dataset.get("SharedFunctionalGroupsSequence")
    shared = shared[0] if shared else None
    items = dataset.PerFrameFunctionalGroupsSequence
    assert len(items) == number
    return [Frame(dataset, k, pixels[k], items[k], shared) for k in range(number)]


def volume(frames):
    """affine (voxel centre to RAS mm) and voxels [z][y][x] of frames that form a regular grid."""
    first = frames[0]
    frames = sorted(frames, key=lambda f: float(f.position @ first.normal))
    first, last = frames[0], frames[-1]
    for f in frames:
        assert np.abs(f.row - first.row).max() < 1e-3 and np.abs(f.column - first.column).max() < 1e-3
        assert f.pixels.shape == first.pixels.shape and np.allclose(f.spacing, first.spacing, atol=1e-4)
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[0]
    affine[:3, 1] = first.column * first.spacing[1]
    affine[:3, 2] = (last.position - first.position) / max(1, len(frames) - 1)
    affine[:3, 3] = first.position
    # Every slice lies where the affine puts it, up to what rounding of text makes.
    for k, f in enumerate(frames):
        tolerance = max(0.02, 0.01 * min(np.linalg.norm(affine[:3, 2]), *first.spacing)) * 1.5
        assert np.abs(affine[:3, 2] * k + first.position - f.position).max() <= tolerance, (k, f.position)
    return np.diag([-1.0, -1, 1, 1]) @ affine, np.stack([f.pixels for f in frames])


class Read:
    """The program's own reading: code, error line, and affine and voxels where code is 0."""

    def __init__(self, path, series=None, tolerate=False):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out")
            words = [DUMP, str(path), out, series or "-"] + (["tolerate"] if tolerate else [])
            done = subprocess.run(words, capture_output=True, timeout=200)
            lines = done.stderr.decode().splitlines()
            self.code = done.returncode
            self.warnings = [line for line in lines if line.startswith("warning: ")]
            self.errors = [line for line in lines if not line.startswith("warning: ")]
            self.error = self.errors[0] if self.errors else ""
            if self.code == 0:
                with open(out, "rb") as file:
                    data = file.read()
                dims = struct.unpack("<3Q", data[:24])
                self.affine = np.frombuffer(data, float, 16, 24).reshape(4, 4)
                self.voxels = np.frombuffer(data, np.float32, offset=152).reshape(dims[::-1])


def corner_distance(a, b, shape):
    """Largest distance in mm between the corners of two grids of shape [z][y][x]."""
    ends = np.array([[x, y, z, 1] for x in (0, shape[2] - 1) for y in (0, shape[1] - 1) for z in (0, shape[0] - 1)])
    return float(np.linalg.norm((ends @ (a - b).T)[:, :3], axis=1).max())


def difference(read, frames):
    """"" when the program's volume is pydicom's: corners within 1e-3 mm, every voxel equal; else what differs."""
    affine, voxels = volume(frames)
    if read.voxels.shape != voxels.shape:
        return f"shape {read.voxels.shape}, pydicom {voxels.shape}"
    distance = corner_distance(read.affine, affine, voxels.shape)
    if not distance <= 1e-3:
        return f"corners {distance} mm apart"
    # Both compute in double and round once.
    different = int((read.voxels != voxels).sum())
    return f"{different} voxels differ" if different else ""
