"""Writes plain DICOM MR series for the tests of the command line."""
import numpy as np
from new_image import new_image
from pydicom.uid import MRImageStorage, generate_uid

NAME, PATIENT = "Doe^Jane", "PID-Q4711"


def write_series(folder, seed=0, number=3, positions=None, description="T1 of Doe", study=None,
                 change=lambda d: None):
    """Slices of 22 x 24 pixels of noise at the positions z in mm. change(dataset) is called for each before it is written.
    Returns the series' UID."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    series, study = generate_uid(), study or generate_uid()
    positions = positions if positions is not None else [2.0 * k for k in range(20)]
    for k, z in enumerate(positions):
        d = new_image(MRImageStorage, 24, 22, (study, series, study))
        d.PatientName, d.PatientID, d.PatientBirthDate, d.StudyDate = NAME, PATIENT, "19700102", "20200304"
        d.Modality, d.SeriesDescription, d.SeriesNumber, d.InstanceNumber = "MR", description, number, k + 1
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, z]
        d.PixelSpacing, d.SliceThickness = [1.0, 1.5], 2.0
        d.PixelData = random.integers(0, 4000, (24, 22)).astype("<u2").tobytes()
        change(d)
        d.save_as(folder / f"IM{seed}{random.integers(1e6)}_{k:03d}", enforce_file_format=True)
    return str(series)
