"""Scans in every kind of geometry, and what a segmentation node of one has to be."""
import nibabel
import numpy as np
import slicer
from mrml import LABELS, Segmentation, entry_of, ijk_to_ras
from VoxMambaLib import Labels


def turned(rotations, spacing, origin):
    """Affine: turns in degrees about z, y and x, then spacing in mm."""
    out = np.eye(4)
    for axis, degrees in zip((2, 1, 0), rotations):
        turn, (i, j) = np.eye(4), [k for k in range(3) if k != axis]
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        out = out @ turn
    out = out @ np.diag([*spacing, 1.0])
    out[:3, 3] = origin
    return out


AFFINES = {
    "identity": np.eye(4),
    "flipped": turned((0, 0, 0), (-1, -1, 1), (90.5, 120.25, -700)),  # as DICOM has it
    "left-handed": turned((0, 0, 0), (1, -1, 1), (-8, 200, 33.3)),
    "anisotropic": turned((0, 0, 0), (0.7, 0.8, 2.9), (1, 2, 3)),
    "oblique": turned((20, -10, 35), (0.9, 1.1, 1.3), (120.5, -210.25, -830.75)),
    "oblique, left-handed": turned((170, 25, -5), (-0.95, 1.05, 1.6), (-55, 66, 77)),
    "axes in another order": np.array([[0, 0, 1.2, 5], [-0.9, 0, 0, 10], [0, 1.1, 0, 15], [0, 0, 0, 1.0]]),
}


def scan_file(path, affine, shape=(21, 26, 17)):
    """A blob whose brightness grows along x and y (no two axes or ends look alike), with noise; dark at the edges."""
    random = np.random.default_rng(5)
    grid = np.meshgrid(*[np.linspace(0, 1, n) for n in shape], indexing="ij")
    data = random.normal(0, 20, shape)
    inside = tuple(slice(n // 5, n - n // 6) for n in shape)
    data[inside] += (200 + 400 * grid[0] + 150 * grid[1] ** 2 + 40 * grid[2])[inside]
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), affine), str(path))
    return path


def check(node, volume, values, labels=LABELS):
    got = Segmentation(node)
    assert got.names() == {l["value"]: l["name"] for l in labels}
    assert all(np.allclose(got.colors()[l["value"]], l["rgb"], atol=1e-3) for l in labels)
    without = entry_of(slicer.vtkSegment())  # Slicer's own, for a segment that nobody gave one: "Tissue"
    assert got.entries() == {l["value"]: Labels.terminology_entry(l) or without for l in labels}
    assert np.allclose(got.reference_affine(), ijk_to_ras(volume), rtol=0, atol=1e-9)
    assert got.reference.GetDimensions() == volume.GetImageData().GetDimensions() == values.shape
    assert np.array_equal(got.mask(), values)
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReferenceID(role) == volume.GetID()
