"""real.py [FOLDER]: every file under a folder of real DICOM beside pydicom; default $VOXMAMBA_TEST_DATA/dicom.

Each file alone, then each folder. Exit 0 must give pydicom's geometry and voxels; a refusal must have one line and be
one of the known reasons."""
import os
import re
import sys

import oracle

REASONS = (r"is no CT, MR or PET volume|one slice: a 3D|one position: a 3D|at a position that another slice holds|"
           r"\d+ series|damaged DICOM file|no PerFrameFunctionalGroups|colour image|uneven slice|tilt or shear|"
           r"not a DICOM|no DICOM|cannot be read|mixed|slice missing|no ImagePosition|frames in a file|"
           r"\d+ (frame types|slice sizes|pixel spacings|slice orientations)")


def series_frames(path, uid):
    """Frames of a multi-frame file, or of the file's series in its folder."""
    first = oracle.pydicom.dcmread(path, stop_before_pixels=True)
    if int(first.get("NumberOfFrames") or 1) > 1:
        return oracle.frames_of(path)
    folder = os.path.dirname(path)
    return folder_frames([os.path.join(folder, name) for name in sorted(os.listdir(folder))], uid)


def folder_frames(paths, uid=None):
    frames = []
    for path in paths:
        try:
            dataset = oracle.pydicom.dcmread(path, stop_before_pixels=True)
        except (oracle.pydicom.errors.InvalidDicomError, OSError):
            continue
        if "ImageType" not in dataset or (uid and dataset.get("SeriesInstanceUID") != uid):
            continue
        frames += oracle.frames_of(path)
    return frames


def outcome(path, frames, series=None):
    """A row of the table; raises when the program is wrong."""
    read = oracle.Read(path, series)
    assert read.code in (0, 2), (path, read.code, read.errors)
    if read.code == 2:
        assert len(read.errors) == 1 and re.search(REASONS, read.error), (path, read.errors)
        parts = re.findall(r"(\d+/\d+) \(", read.error) if series is None else []
        return "refused: " + read.error, parts
    problem = oracle.difference(read, frames())
    assert not problem, (path, series, problem)
    return f"read: {read.voxels.shape[::-1]}", []


def main():
    base = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.environ.get("VOXMAMBA_TEST_DATA", ""), "dicom")
    if not os.path.isdir(base):
        print("skipped: no folder of real files ($VOXMAMBA_TEST_DATA)")
        return 77
    counts = {"read": 0, "refused": 0}
    for folder, _, names in sorted(os.walk(base)):
        paths = [os.path.join(folder, name) for name in sorted(names)]
        dicom = []
        for path in paths:
            try:
                dicom.append((path, oracle.pydicom.dcmread(path, stop_before_pixels=True)))
            except oracle.pydicom.errors.InvalidDicomError:
                continue
        for path, dataset in dicom:
            text, parts = outcome(path, lambda: series_frames(path, dataset.get("SeriesInstanceUID")))
            counts[text.split(":")[0]] += 1
            print(f"{os.path.relpath(path, base)}: {text}")
            for part in parts:
                number = int(part.split("/")[1]) - 1
                def of_part():
                    frames = series_frames(path, dataset.get("SeriesInstanceUID"))
                    kinds = sorted({str(f.type) for f in frames})
                    return [f for f in frames if str(f.type) == kinds[number]]
                print(f"    --series {part}: {outcome(path, of_part, part)[0]}")
        if dicom:
            uids = {d.get("SeriesInstanceUID") for _, d in dicom}
            text, _ = outcome(folder, lambda: folder_frames([p for p, _ in dicom]))
            print(f"{os.path.relpath(folder, base)}/ ({len(uids)} series): {text}")
    print(counts)
    assert min(counts.values()) > 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
