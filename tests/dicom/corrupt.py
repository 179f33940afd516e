"""corrupt.py N [SEED [FOLDER]]: N random corruptions of real DICOM files; default $VOXMAMBA_TEST_DATA/dicom.

One file of a small series is damaged (bytes, or a cut). The program must end with 0 and the voxels and geometry that
pydicom reads from the same files, or with 2 and one line; never with a signal, late, or with anything else."""
import collections
import itertools
import os
import random
import shutil
import sys
import tempfile
import time

import oracle
from oracle import np, pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage, generate_uid


def save_slices(folder, slices):
    """Data sets to files of one series, 2 mm apart."""
    os.makedirs(folder)
    series = generate_uid()
    for k, dataset in enumerate(slices):
        dataset.SeriesInstanceUID = series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.5, 1.25]
        dataset.ImagePositionPatient = [-83.9063, -91.2, 6.5 + 2 * k]
        dataset.save_as(os.path.join(folder, f"{k}.dcm"))


def from_frames(path):
    """One data set a compressed frame of a file, as single-frame MR."""
    source = pydicom.dcmread(path)
    number = int(source.get("NumberOfFrames") or 1)
    streams = list(generate_frames(source.PixelData, number_of_frames=number)) * 3
    for stream in streams[:3]:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        if "NumberOfFrames" in dataset:
            del dataset.NumberOfFrames
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        yield dataset


def make_bases(base, work):
    """Folders of small series in every transfer syntax that the real files have, and multi-frame ones."""
    def real(*names):
        return os.path.join(base, *names)

    shutil.copytree(real("seg_dcmqi", "24x38x3", "image"), os.path.join(work, "implicit_ct"))
    for name, path in (("multiframe_ct", real("seg_dcmqi", "24x38x3", "multiframe", "mf.dcm")),
                       ("multiframe_mr", real("mr_enhanced_multiframe", "6_1.dcm"))):
        os.makedirs(os.path.join(work, name))
        shutil.copy(path, os.path.join(work, name, "0.dcm"))
    for name in ("MR_small", "MR_small_implicit", "MR_small_bigendian"):
        save_slices(os.path.join(work, name), [pydicom.dcmread(real("pydicom_data", name + ".dcm")) for _ in range(3)])
    deflated = [pydicom.dcmread(real("pydicom_data", "MR_small.dcm")) for _ in range(3)]
    for dataset in deflated:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save_slices(os.path.join(work, "deflated"), deflated)
    for name in ("MR_small_RLE", "MR_small_jpeg_ls_lossless", "JPEG-LL", "emri_small_jpeg_2k_lossless"):
        save_slices(os.path.join(work, name), from_frames(real("pydicom_data", name + ".dcm")))


def check_cut_streams(base, work):
    """A compressed stream that lacks its end, with and without an end marker put there: decoders would fill it up."""
    for name in ("MR_small_RLE", "MR_small_jpeg_ls_lossless", "JPEG-LL", "JPEG2000", "emri_small_jpeg_2k_lossless",
                 "JPGLosslessP14SV1_1s_1f_8b"):
        for share, end in itertools.product((0.2, 0.5, 0.99), (b"", b"\xff\xd9")):
            folder = os.path.join(work, "cut")
            slices = list(from_frames(os.path.join(base, "pydicom_data", name + ".dcm")))
            stream = next(generate_frames(slices[1].PixelData, number_of_frames=1)).rstrip(b"\0")
            slices[1].PixelData = encapsulate([stream[:int(len(stream) * share) // 2 * 2] + end])
            slices[1]["PixelData"].VR = "OB"
            save_slices(folder, slices)
            read = oracle.Read(folder)
            assert read.code == 2 and len(read.errors) == 1 and "slice 2 of 3: " in read.error, (name, share, read.errors)
            shutil.rmtree(folder)


def damage(data, chance):
    data = bytearray(data)
    if chance.random() < 0.2:
        return bytes(data[:chance.randrange(len(data))])
    end = len(data) if chance.random() < 0.5 else min(len(data), 2500)  # half of them in the attributes
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        data[chance.randrange(end)] = chance.randrange(256)
    return bytes(data)


def truth(folder):
    """Frames of the series that most files belong to. Files that pydicom takes for no DICOM are no part of it."""
    found = collections.defaultdict(list)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            found[pydicom.dcmread(path, stop_before_pixels=True).get("SeriesInstanceUID")].append(path)
        except pydicom.errors.InvalidDicomError:
            continue
    paths = max(found.values(), key=len)
    return [frame for path in paths for frame in oracle.frames_of(path)]


def judge(folder):
    """"0", "2", or what is wrong."""
    begin = time.monotonic()
    read = oracle.Read(folder)
    if time.monotonic() - begin > 90:
        return "late"
    if read.code == 2 and len(read.errors) == 1 and not read.warnings:
        return "2"
    if read.code != 0 or read.errors:
        return f"exit {read.code}: {read.errors}"
    try:
        problem = oracle.difference(read, truth(folder))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:  # pydicom cannot read what the program read (a decoder of it even panics)
        return f"pydicom: {type(e).__name__}: {e}"
    return problem or "0"


def main():
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    base = sys.argv[3] if len(sys.argv) > 3 else os.path.join(os.environ.get("VOXMAMBA_TEST_DATA", ""), "dicom")
    if not os.path.isdir(base):
        print("skipped: no folder of real files ($VOXMAMBA_TEST_DATA)")
        return 77
    counts, wrong = collections.Counter(), []
    keep = os.environ.get("VOXMAMBA_KEEP_CORRUPT")
    with tempfile.TemporaryDirectory() as work:
        check_cut_streams(base, work)
        make_bases(base, work)
        names = sorted(os.listdir(work))
        for name in names:  # undamaged they are read, and as pydicom reads them
            text = judge(os.path.join(work, name))
            if "Unable to decompress" in text:  # pydicom's plugins are not installed
                print("left out:", name)
                shutil.rmtree(os.path.join(work, name))
                continue
            assert text == "0", (name, text)
        names = sorted(os.listdir(work))
        for i in range(number):
            chance = random.Random(f"{seed}/{i}")
            name = chance.choice(names)
            folder = os.path.join(work, name)
            path = os.path.join(folder, chance.choice(sorted(os.listdir(folder))))
            whole = open(path, "rb").read()
            with open(path, "wb") as file:
                file.write(damage(whole, chance))
            text = judge(folder)
            if text not in ("0", "2"):
                wrong.append((i, name, text))
                print(f"{seed}/{i} {name}: {text}", flush=True)
                if keep:
                    shutil.copytree(folder, os.path.join(keep, f"{seed}_{i}_{name}"), dirs_exist_ok=True)
            counts[text if text in ("0", "2") else "wrong"] += 1
            with open(path, "wb") as file:
                file.write(whole)
    print(dict(counts))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
