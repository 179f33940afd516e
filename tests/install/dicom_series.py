"""dicom_series.py SCAN.nii.gz FOLDER: the scan, rounded to whole numbers, in FOLDER four times on the same grid: NIfTI,
and DICOM series in explicit VR, implicit VR (which takes DCMTK's dictionary to read) and RLE compressed (which takes
GDCM)."""
import sys
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dicom"))
from new_image import new_image, new_uids  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, RLELossless  # noqa: E402


def slice_of(k, pixels, affine, syntax, uids):
    """pixels [x][y] of slice k; affine: voxel centre -> LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    d = new_image(MRImageStorage, *pixels.T.shape, uids, syntax)
    d.Modality, d.SeriesNumber, d.InstanceNumber = "MR", 1, k + 1
    d.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
    d.ImagePositionPatient = list((affine @ [0, 0, k, 1])[:3])
    d.PixelSpacing, d.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    d.BitsStored, d.HighBit = 16, 15
    d.PixelData = np.ascontiguousarray(pixels.T).astype("<u2").tobytes()
    return d


scan = nibabel.load(sys.argv[1])
voxels = np.round(np.asarray(scan.dataobj)).astype(np.uint16)
lps = np.diag([-1, -1, 1, 1]) @ scan.affine
assert np.linalg.det(lps[:3, :3]) > 0  # slices go along the cross product of row and column
top = Path(sys.argv[2])
top.mkdir()
nibabel.save(nibabel.Nifti1Image(voxels, scan.affine), top / "scan.nii.gz")
for name in "explicit", "implicit", "rle":
    folder = top / name
    folder.mkdir()
    uids = new_uids()
    syntax = ImplicitVRLittleEndian if name == "implicit" else ExplicitVRLittleEndian
    for k in range(voxels.shape[2]):
        d = slice_of(k, voxels[:, :, k], lps, syntax, uids)
        if name == "rle":
            d.compress(RLELossless)
        d.save_as(folder / f"IM{k:03d}", enforce_file_format=True)
