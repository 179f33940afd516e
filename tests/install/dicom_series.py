"""dicom_series.py FOLDER: three small MR series in FOLDER: explicit VR, implicit VR (which takes DCMTK's dictionary to
read) and RLE compressed (which takes GDCM)."""
import pathlib
import sys

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid


def slice_of(k, syntax, series, pixels):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.Modality, d.SeriesNumber, d.InstanceNumber, d.ImageType = "MR", 1, k + 1, ["ORIGINAL", "PRIMARY"]
    d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, series + ".1", series + ".2"
    d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, 2.0 * k]
    d.PixelSpacing, d.SliceThickness = [1.0, 1.5], 2.0
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *pixels.shape, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.PixelData = pixels.tobytes()
    return d


random = np.random.default_rng(0)
volume = random.integers(0, 4000, (20, 24, 22)).astype("<u2")
for name in "explicit", "implicit", "rle":
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir(parents=True)
    uid = generate_uid()
    for k, pixels in enumerate(volume):
        d = slice_of(k, ImplicitVRLittleEndian if name == "implicit" else ExplicitVRLittleEndian, uid, pixels)
        if name == "rle":
            d.compress(RLELossless)
        d.save_as(folder / f"IM{k:03d}", enforce_file_format=True)
