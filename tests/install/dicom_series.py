"""dicom_series.py SCAN.nii.gz FOLDER: the scan, rounded to whole numbers, in FOLDER four times on the same grid: NIfTI,
and DICOM series in explicit VR, implicit VR (which takes DCMTK's dictionary to read) and RLE compressed (which takes
GDCM)."""
import pathlib
import sys

import nibabel
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid


def slice_of(k, pixels, affine, syntax, uids):
    """pixels [x][y] of slice k; affine: voxel centre -> LPS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.Modality, d.SeriesNumber, d.InstanceNumber, d.ImageType = "MR", 1, k + 1, ["ORIGINAL", "PRIMARY"]
    d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = uids
    d.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
    d.ImagePositionPatient = list((affine @ [0, 0, k, 1])[:3])
    d.PixelSpacing, d.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    d.Columns, d.Rows = pixels.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
    d.PixelData = np.ascontiguousarray(pixels.T).astype("<u2").tobytes()
    return d


scan = nibabel.load(sys.argv[1])
voxels = np.round(np.asarray(scan.dataobj)).astype(np.uint16)
lps = np.diag([-1, -1, 1, 1]) @ scan.affine
assert np.linalg.det(lps[:3, :3]) > 0  # slices go along the cross product of row and column
pathlib.Path(sys.argv[2]).mkdir()
nibabel.save(nibabel.Nifti1Image(voxels, scan.affine), pathlib.Path(sys.argv[2]) / "scan.nii.gz")
for name in "explicit", "implicit", "rle":
    folder = pathlib.Path(sys.argv[2]) / name
    folder.mkdir()
    uids = [generate_uid() for _ in range(3)]
    syntax = ImplicitVRLittleEndian if name == "implicit" else ExplicitVRLittleEndian
    for k in range(voxels.shape[2]):
        d = slice_of(k, voxels[:, :, k], lps, syntax, uids)
        if name == "rle":
            d.compress(RLELossless)
        d.save_as(folder / f"IM{k:03d}", enforce_file_format=True)
