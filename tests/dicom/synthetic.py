"""DICOM made here with pydicom: enhanced multi-frame objects, compressed frames, stacks that have to be straightened."""
import random
import struct
import sys
import zlib

import corrupt
import oracle
from oracle import np, pydicom

try:
    import pytest
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from new_image import new_image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (CTImageStorage, DeflatedExplicitVRLittleEndian, EnhancedMRImageStorage, ExplicitVRBigEndian,
                         ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid)

OBLIQUE = np.linalg.qr(np.array([[1, 0.2, 0.1], [0.3, 1, -0.2], [0.1, 0.4, 1.0]]))[0]


def group(**values):
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def blank(sop_class, syntax, rows, columns):
    d = new_image(sop_class, rows, columns, ("1.2.3", "1.2.3.4", "1.2.3.5"), syntax)
    d.Modality, d.SeriesNumber, d.ImageType = "MR", 8, ["ORIGINAL", "PRIMARY", "M", "NONE"]
    return d


def write(dataset, path):
    # pydicom writes what it is given: words of a big-endian file are swapped here.
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset.save_as(path, enforce_file_format=True)


class Frame:
    """One frame of an enhanced object: place k along the normal, and what sets it apart."""

    def __init__(self, k, kind=("ORIGINAL", "PRIMARY", "M", "NONE"), slope=1.0, intercept=0.0, time=1, stack="1",
                 axes=OBLIQUE):
        self.k, self.kind, self.slope, self.intercept = k, list(kind), slope, intercept
        self.time, self.stack, self.axes = time, stack, axes


def enhanced(path, frames, syntax=ExplicitVRLittleEndian, change=lambda d: None, offsets=True):
    """rows 10, columns 12; slices 3 mm apart; shared spacing."""
    d = blank(EnhancedMRImageStorage, syntax if not syntax.is_encapsulated else ExplicitVRLittleEndian, 10, 12)
    noise = np.random.default_rng(3)
    d.NumberOfFrames = len(frames)
    d.PixelData = noise.integers(0, 4096, (len(frames), 10, 12)).astype("<u2").tobytes()
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.75, 0.5], SliceThickness=9)
    d.SharedFunctionalGroupsSequence = Sequence([shared])
    d.PerFrameFunctionalGroupsSequence = Sequence()
    for f in frames:
        item = Dataset()
        position = np.array([-20, 30, 5]) + 3.0 * f.k * np.cross(f.axes[:, 0], f.axes[:, 1])
        item.PlanePositionSequence = group(ImagePositionPatient=[f"{v:.10g}" for v in position])
        item.PlaneOrientationSequence = group(
            ImageOrientationPatient=[f"{v:.10g}" for v in np.r_[f.axes[:, 0], f.axes[:, 1]]])
        item.PixelValueTransformationSequence = group(RescaleSlope=f.slope, RescaleIntercept=f.intercept)
        item.MRImageFrameTypeSequence = group(FrameType=f.kind)
        item.FrameContentSequence = group(StackID=f.stack, InStackPositionNumber=f.k + 1, TemporalPositionIndex=f.time)
        d.PerFrameFunctionalGroupsSequence.append(item)
    if syntax.is_encapsulated:
        d.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
        streams = list(generate_frames(d.PixelData, number_of_frames=len(frames)))
        d.PixelData = encapsulate(streams, has_bot=offsets)
    change(d)
    write(d, path)


def must_equal(path, frames=None, series=None):
    read = oracle.Read(path, series)
    assert read.code == 0, read.errors
    problem = oracle.difference(read, frames or oracle.frames_of(path))
    assert not problem, problem
    return read


def must_refuse(path, *words, series=None, tolerate=False):
    read = oracle.Read(path, series, tolerate)
    assert read.code == 2 and len(read.errors) == 1, (read.code, read.errors)
    for word in words:
        assert word in read.error, read.error


SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
            RLELossless]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name.split()[0] + s.name.split()[-2])
def test_frames_in_any_order_with_slopes_of_their_own(tmp_path, syntax):
    order = list(range(7))
    random.Random(1).shuffle(order)
    frames = [Frame(k, slope=0.5 * (k + 1), intercept=-10.0 * k) for k in order]
    path = tmp_path / "a.dcm"
    enhanced(path, frames, syntax)
    read = must_equal(path)
    assert read.voxels.shape == (7, 10, 12)
    # By the numbers that were written, not by pydicom: voxel spacing, and the first voxel's place.
    assert np.allclose(np.linalg.norm(read.affine[:3, :3], axis=0), [0.5, 0.75, 3])
    assert np.allclose(read.affine[:3, 3], [20, -30, 5])


@pytest.mark.parametrize("offsets", [True, False])
def test_offset_tables(tmp_path, offsets):
    path = tmp_path / "a.dcm"
    enhanced(path, [Frame(k) for k in range(4)], RLELossless, offsets=offsets)
    must_equal(path)


def test_a_wrong_offset_table_is_refused(tmp_path):
    path = tmp_path / "a.dcm"
    enhanced(path, [Frame(k) for k in range(4)], RLELossless)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xfe\xff\x00\xe0\x10\x00\x00\x00") + 12  # the table's second offset
    data[at] ^= 2
    path.write_bytes(data)
    must_refuse(path, "4 compressed fragments and an offset table of 16 bytes do not make 4 frames")


def test_frame_types_are_parts(tmp_path):
    path = tmp_path / "a.dcm"
    kinds = [("ORIGINAL", "PRIMARY", "M", "NONE"), ("ORIGINAL", "PRIMARY", "P", "NONE")]
    enhanced(path, [Frame(k, kind, slope=1 + i) for k in range(5) for i, kind in enumerate(kinds)])
    must_refuse(path, "2 series", r"8/1 (MR, FrameType ORIGINAL\PRIMARY\M\NONE, 5 frames)", "8/2")
    frames = oracle.frames_of(path)
    for part, kind in (("8/1", "M"), ("1.2.3.4/2", "P")):
        must_equal(path, [f for f in frames if f.type[2] == kind], part)


def test_time_points_are_parts(tmp_path):
    path = tmp_path / "a.dcm"
    enhanced(path, [Frame(k, time=t) for t in (1, 2, 10) for k in range(3)])
    must_refuse(path, "3 series", "8/3 (MR, TemporalPositionIndex 10, 3 frames)")
    frames = oracle.frames_of(path)
    for t in range(3):
        must_equal(path, frames[3 * t:3 * t + 3], f"8/{t + 1}")


def test_stacks_of_two_orientations_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    enhanced(path, [Frame(k, stack=s, axes=a) for s, a in (("1", OBLIQUE), ("2", np.eye(3))) for k in range(3)])
    must_refuse(path, "2 slice orientations, the first with 3 of 6 frames")


def test_two_files_of_one_series_are_one_volume(tmp_path):
    enhanced(tmp_path / "a.dcm", [Frame(k) for k in (4, 5, 3)])
    enhanced(tmp_path / "b.dcm", [Frame(k, slope=2) for k in (0, 1, 2)])
    must_equal(tmp_path, oracle.frames_of(tmp_path / "a.dcm") + oracle.frames_of(tmp_path / "b.dcm"))


def delete(name, frame=None):
    def change(d):
        groups = d.SharedFunctionalGroupsSequence[0] if frame is None else d.PerFrameFunctionalGroupsSequence[frame]
        del groups[name]
    return change


@pytest.mark.parametrize("change, words", [
    (delete("PixelMeasuresSequence"), "frame 1: no PixelSpacing"),
    (delete("PlanePositionSequence", 2), "frame 3: no ImagePositionPatient"),
    (delete("PlaneOrientationSequence", 0), "frame 1: no ImageOrientationPatient"),
    (lambda d: d.PerFrameFunctionalGroupsSequence.pop(), "functional groups of 3 frames for 4 frames"),
    (lambda d: delattr(d, "PerFrameFunctionalGroupsSequence"), "no PerFrameFunctionalGroupsSequence"),
    (lambda d: setattr(d, "PixelPresentation", "COLOR"), "PixelPresentation COLOR"),
    (lambda d: setattr(d, "NumberOfFrames", 5), "bytes of pixels where 12 x 10 of 16 bits in 5 frames need 1200"),
    (lambda d: setattr(d, "BitsAllocated", 12), "12 x 10 pixels of 12 bits"),
])
def test_what_cannot_be_is_refused(tmp_path, change, words):
    enhanced(tmp_path / "a.dcm", [Frame(k) for k in range(4)], change=change)
    must_refuse(tmp_path / "a.dcm", words)


def test_shared_slope_and_missing_slope(tmp_path):
    def change(d):
        for item in d.PerFrameFunctionalGroupsSequence:
            del item.PixelValueTransformationSequence
        d.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence = group(RescaleSlope=3, RescaleIntercept=1)
        d.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = group(RescaleSlope=2, RescaleIntercept=7)
    enhanced(tmp_path / "a.dcm", [Frame(k) for k in range(4)], change=change)
    read = must_equal(tmp_path / "a.dcm")
    stored = np.frombuffer(pydicom.dcmread(tmp_path / "a.dcm").PixelData, "<u2").reshape(4, 10, 12)
    assert np.array_equal(read.voxels[1], stored[1] * 3 + 1) and np.array_equal(read.voxels[2], stored[2] * 2 + 7)


# ---- Straightening ------------------------------------------------------------------------------

FIELD = np.array([3.0, -2.0, 5.0])  # stored value = 2000 + FIELD . position in mm, kept exactly by a fine slope
SLOPE = 1.0 / 16


def field(position):
    return 2000 + position @ FIELD


def stack(folder, heights, shift=lambda z: (0.0, 0.0), skip=()):
    """Axial slices, 20 x 16 pixels of 1 x 0.5 mm, whose values are a linear function of the place in the patient."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, z in enumerate(heights):
        if k in skip:
            continue
        dx, dy = shift(z)
        d = blank(CTImageStorage, ExplicitVRLittleEndian, 16, 20)
        d.Modality, d.BitsStored, d.HighBit = "CT", 16, 15
        d.ImageOrientationPatient, d.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 1]
        d.ImagePositionPatient = [f"{v:.10g}" for v in (-10 + dx, 4 + dy, z)]
        d.RescaleSlope, d.RescaleIntercept = SLOPE, 0
        x, y = np.meshgrid(-10 + dx + np.arange(20), 4 + dy + 0.5 * np.arange(16))
        values = field(np.stack([x, y, np.full_like(x, z)], -1)) / SLOPE
        d.PixelData = np.round(values).astype("<u2").tobytes()
        write(d, folder / f"{k}.dcm")


def straightened(folder, *words):
    """The volume, and for each voxel the field at its place; nan where the voxel holds the lowest value."""
    must_refuse(folder, "--tolerate-geometry", *words)
    read = oracle.Read(folder, tolerate=True)
    assert read.code == 0, read.errors
    assert len(read.warnings) == 1 and "resampled to a straight, even grid" in read.warnings[0]
    assert all(word in read.warnings[0] for word in words)
    columns = read.affine[:3, :3]
    assert np.allclose(columns.T @ columns, np.diag(np.diag(columns.T @ columns)), atol=1e-9)
    d, h, w = read.voxels.shape
    z, y, x = np.meshgrid(np.arange(d), np.arange(h), np.arange(w), indexing="ij")
    ras = np.stack([x, y, z], -1) @ columns.T + read.affine[:3, 3]
    expected = field(ras * [-1, -1, 1])
    return read, expected


def test_uneven_slices(tmp_path):
    stack(tmp_path / "s", [0, 2, 4, 6.5, 8, 10, 12])
    read, expected = straightened(tmp_path / "s", "uneven slice distances, 1.500 to 2.500 mm")
    assert read.voxels.shape == (7, 16, 20) and np.abs(read.voxels - expected).max() <= SLOPE


def test_distances_that_drift(tmp_path):
    """Each within 0.02 mm of the next, all together 0.225 mm beside an even grid in the middle."""
    stack(tmp_path / "s", [float(k) for k in range(26)] + [25 + 1.018 * k for k in range(1, 26)])
    read, expected = straightened(tmp_path / "s", "slices lie up to 0.225 mm beside an even grid of 1.009 mm")
    assert np.abs(read.voxels - expected).max() <= SLOPE
    # What two decimals make is nothing.
    stack(tmp_path / "t", [round(0.703125 * k, 2) for k in range(60)])
    assert oracle.Read(tmp_path / "t").code == 0


def test_missing_slices(tmp_path):
    stack(tmp_path / "s", [2.0 * k for k in range(9)], skip=(3, 4))
    read, expected = straightened(tmp_path / "s", "2 slices missing", "gap 6.000")
    assert read.voxels.shape == (9, 16, 20) and np.abs(read.voxels - expected).max() <= SLOPE


@pytest.mark.parametrize("degrees", [18.5, -7])
def test_tilt(tmp_path, degrees):
    slope = np.tan(np.radians(degrees))
    stack(tmp_path / "s", [2.0 * k for k in range(9)], shift=lambda z: (0.0, slope * z))
    read, expected = straightened(tmp_path / "s", f"tilt or shear of {abs(degrees):.2f} degrees")
    low = read.voxels.min()
    covered = read.voxels > low
    # All of every slice but its rim is there: the shift is up to 16 tan(a) mm, half a millimetre a row.
    assert covered.sum() >= 9 * 20 * 14 and read.voxels.shape[1] == 16 + np.ceil(abs(slope) * 16 / 0.5)
    # Between two slices one may end first: there the nearer one's value stands, within half a step.
    error = np.abs(read.voxels - expected)[covered]
    assert (error <= 2 * SLOPE).mean() > 0.95 and error.max() <= 0.5 * 2 * FIELD[2] + 1


def test_shifted_slice(tmp_path):
    stack(tmp_path / "s", [2.0 * k for k in range(6)], shift=lambda z: (0.5 if z == 4 else 0.0, 0.0))
    read, expected = straightened(tmp_path / "s", "shifted sideways by up to 0.500 mm")
    inside = np.s_[:, :, 1:-2]
    assert np.abs(read.voxels - expected)[inside].max() <= 2 * SLOPE


def test_copies(tmp_path):
    folder = tmp_path / "s"
    stack(folder, [2.0 * k for k in range(5)])
    (folder / "copy").write_bytes((folder / "2.dcm").read_bytes())
    read, expected = straightened(folder, "1 slice at a position that another slice holds, first at 4.00 mm")
    assert read.voxels.shape == (5, 16, 20) and np.abs(read.voxels - expected).max() <= SLOPE
    other = pydicom.dcmread(folder / "2.dcm")
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "copy")
    must_refuse(folder, "two slices at one position hold different pixels", tolerate=True)
    assert not oracle.Read(folder, tolerate=True).warnings  # it was not resampled


def test_what_resampling_does_not_mend(tmp_path):
    stack(tmp_path / "s", [2.0 * k for k in range(5)])
    d = pydicom.dcmread(tmp_path / "s" / "2.dcm")
    d.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    d.save_as(tmp_path / "s" / "2.dcm")
    must_refuse(tmp_path / "s", "2 slice orientations", tolerate=True)


# Heights of real series that lacked files: what dcm2niix's issues 248 and 468 list.
LACKING = {"248": [1.6 * k for k in range(19)] + [211.2 + 1.6 * k for k in range(18)],
           "468": [1.25 * k for k in range(12)] + [97.5 + 1.25 * k for k in range(10)]}


def degrees_of(tilt):
    return lambda z: (0.0, np.tan(np.radians(tilt)) * z)


def test_the_most_that_is_straightened(tmp_path):
    """A gap of 8 usual ones, and 2.5 times the voxels."""
    stack(tmp_path / "a", [1.25 * k for k in range(20)] + [23.75 + 10 * k for k in range(1, 5)])
    read, _ = straightened(tmp_path / "a", "28 slices missing, first between 23.75 and 33.75 mm")
    assert read.voxels.shape == (52, 16, 20)
    stack(tmp_path / "b", [0.5 * k for k in range(41)], shift=degrees_of(30))  # 11.5 mm beside slices of 8 mm
    read, _ = straightened(tmp_path / "b", "tilt or shear of 30.00 degrees")
    assert read.voxels.shape == (41, 40, 20)


@pytest.mark.parametrize("name", LACKING)
def test_a_hole_is_not_interpolated(tmp_path, name):
    heights = LACKING[name]
    stack(tmp_path / "s", heights)
    gap = max(np.diff(heights))
    must_refuse(tmp_path / "s", f"a gap of {gap:.3f} mm between slices that are else {heights[1]:.3f} mm apart",
                "are files missing?", tolerate=True)


def test_a_grid_that_is_mostly_empty_is_refused(tmp_path):
    stack(tmp_path / "a", [1.25 * k for k in range(12)] + [13.75 + 10 * k for k in range(1, 11)])  # 22 slices
    must_refuse(tmp_path / "a", "20 x 16 x 92 voxels, 4.2 times as many as the slices have", tolerate=True)
    stack(tmp_path / "b", [0.5 * k for k in range(41)], shift=degrees_of(60))  # 34.6 mm beside slices of 8 mm
    must_refuse(tmp_path / "b", "20 x 86 x 41 voxels, 5.4 times as many", tolerate=True)
    for k in range(41):  # a copy of each does not make it less
        (tmp_path / "b" / f"copy{k}").write_bytes((tmp_path / "b" / f"{k}.dcm").read_bytes())
    must_refuse(tmp_path / "b", "5.4 times as many", tolerate=True)


@pytest.mark.parametrize("name, value, words", [
    ("StudyInstanceUID", "1.2.9", "files of 2 studies"),
    ("FrameOfReferenceUID", "1.2.9", "files of 2 frames of reference (their positions are not comparable)"),
    ("Modality", "MR", "files of 2 modalities"),
])
def test_one_series_uid_of_several_origins(tmp_path, name, value, words):
    stack(tmp_path / "s", [2.0 * k for k in range(5)])
    for change in (value, None):  # missing in one is no other one
        d = pydicom.dcmread(tmp_path / "s" / "4.dcm")
        setattr(d, name, change)
        d.save_as(tmp_path / "s" / "4.dcm")
        if change:
            must_refuse(tmp_path / "s", words, "own folder")
            must_refuse(tmp_path / "s", words, tolerate=True)
        else:
            assert oracle.Read(tmp_path / "s").code == 0


def test_a_slice_whose_class_is_damaged_is_not_left_out(tmp_path):
    stack(tmp_path / "s", [2.0 * k for k in range(5)])
    d = pydicom.dcmread(tmp_path / "s" / "4.dcm")
    d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    d.save_as(tmp_path / "s" / "4.dcm")
    must_refuse(tmp_path / "s", "1 of 5 files, '4.dcm': SecondaryCaptureImageStorage is no CT, MR or PET volume",
                "(choose a CT, MR or PET series)")


def test_refusals_name_the_first_file_and_what_to_do(tmp_path):
    stack(tmp_path / "s", [2.0 * k for k in range(5)])
    for name, count in (("3.dcm", "1 of 5 files, '3.dcm'"), ("1.dcm", "2 of 5 files, first '1.dcm'")):
        d = pydicom.dcmread(tmp_path / "s" / name)
        del d.ImagePositionPatient
        d.save_as(tmp_path / "s" / name)
        must_refuse(tmp_path / "s", count + ": no ImagePositionPatient (export the original series again)")
    must_refuse(tmp_path / "s" / "0.dcm", "2 of 5 files, first '1.dcm'", tolerate=True)


def test_links_are_followed_and_no_file_is_read_twice(tmp_path):
    stack(tmp_path / "a", [2.0 * k for k in range(3)])
    stack(tmp_path / "s" / "b", [2.0 * k for k in range(6)], skip=(0, 1, 2))
    (tmp_path / "s" / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "s" / "again").symlink_to(tmp_path / "a" / "1.dcm")
    (tmp_path / "s" / "up").symlink_to(tmp_path / "s")
    paths = [tmp_path / "a" / f"{k}.dcm" for k in range(3)] + [tmp_path / "s" / "b" / f"{k}.dcm" for k in (3, 4, 5)]
    must_equal(tmp_path / "s", [oracle.frames_of(path)[0] for path in paths])


def test_a_file_that_cannot_be_opened_is_not_left_out(tmp_path):
    """At the end of a stack nothing but its name tells that a slice is missing."""
    stack(tmp_path / "s", [2.0 * k for k in range(6)])
    (tmp_path / "s" / "5.dcm").rename(tmp_path / "s" / "IM5")
    must_equal(tmp_path / "s", [oracle.frames_of(path)[0] for path in sorted((tmp_path / "s").iterdir())])
    (tmp_path / "s" / "IM5").unlink()
    (tmp_path / "s" / "IM5").symlink_to(tmp_path / "absent")
    must_refuse(tmp_path / "s", "1 file in the folder cannot be read", "IM5", "No such file")
    must_refuse(tmp_path / "s", "IM5", tolerate=True)


def inflating(path, megabytes, cut=0):
    """A file whose deflated pixels are megabytes of zeros, cut before its end."""
    enhanced(path, [Frame(0)], DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    at = 144 + int.from_bytes(whole[140:144], "little")  # behind the group of the header
    head = zlib.decompressobj(-15).decompress(whole[at:])
    head = head[:head.index(b"\xe0\x7f\x10\x00OW")]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, megabytes << 20))
    for _ in range(megabytes):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    path.write_bytes(whole[:at] + packed[:len(packed) - cut])


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_small_file_that_inflates_to_a_large_one(tmp_path, cut):
    """No more of it is kept than the largest frame has."""
    (tmp_path / "s").mkdir()
    inflating(tmp_path / "s" / "a.dcm", 600, cut)
    must_refuse(tmp_path / "s", "it inflates to more than 268 MB")
    inflating(tmp_path / "s" / "a.dcm", 2, cut)
    must_refuse(tmp_path / "s", "damaged" if cut else "2097152 bytes of pixels where")


@pytest.mark.parametrize("kind", ["frames", "deflated", "rle", "stack"])
def test_random_damage(tmp_path, kind):
    """Bytes changed and files cut: 0 with pydicom's voxels, or 2 with one line."""
    syntax = {"deflated": DeflatedExplicitVRLittleEndian, "rle": RLELossless}.get(kind, ExplicitVRLittleEndian)
    folder = tmp_path / "series"
    if kind == "stack":
        stack(folder, [0, 2, 4])
    else:
        folder.mkdir()
        enhanced(folder / "a.dcm", [Frame(k) for k in range(3)], syntax)
    assert corrupt.judge(folder) == "0"
    paths, found = sorted(folder.iterdir()), []
    for i in range(30):
        chance = random.Random(f"{kind}/{i}")
        path = chance.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(corrupt.damage(whole, chance))
        found.append(corrupt.judge(folder))
        path.write_bytes(whole)
    assert not set(found) - {"0", "2"}, [(i, text) for i, text in enumerate(found) if text not in ("0", "2")]
    assert "2" in found


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
