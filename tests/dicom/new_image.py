"""The DICOM image that every file made by tests begins as."""
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def new_uids():
    """Of a study, a series and a frame of reference."""
    return generate_uid(), generate_uid(), generate_uid()


def new_image(sop_class, rows, columns, uids, syntax=ExplicitVRLittleEndian):
    """An image of the study, series and frame of reference uids: unsigned, 12 of 16 bits stored. It still lacks modality,
    place and pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=syntax.is_implicit_VR,
                    is_little_endian=syntax.is_little_endian)
    d.SOPClassUID, d.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = uids
    d.ImageType = ["ORIGINAL", "PRIMARY"]
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    return d
