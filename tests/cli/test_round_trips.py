"""A marked voxel keeps its index and its place: sources in every orientation and format, masks in every format.

The model labels voxels by their brightness alone (tiny_model.brightness_tensors), so the expected mask is known voxel
by voxel. Masks are read by other programs' readers: nibabel, SimpleITK, pynrrd, slicerio, highdicom."""
import itertools

import nibabel
import numpy as np
import pytest
import tiny_model
from conftest import files, load, run

sitk = pytest.importorskip("SimpleITK")
nrrd = pytest.importorskip("nrrd")
slicerio = pytest.importorskip("slicerio")

CODES = ["".join(c) for axes in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*axes)]
SHAPE, SPACING = (9, 11, 13), (1.25, 0.75, 1.5)  # left to right, back to front, feet to head
# No symmetry: corners, an edge, inside. Along the axes of SHAPE.
MARKS = {(0, 0, 0): 1, (8, 0, 12): 2, (2, 7, 3): 3, (6, 10, 1): 1, (5, 3, 9): 2, (3, 4, 11): 3}
BRIGHTNESS = np.array([100, 300, 500, 900])  # of background and labels
TURN = np.linalg.qr(np.array([[1, 0.25, -0.15], [-0.3, 1, 0.2], [0.1, -0.3, 1]]))[0]
TURN = TURN * np.sign(np.diag(TURN))  # some 20 degrees, each axis near its own
LPS = np.diag([-1.0, -1, 1, 1])
ORIGIN = np.array([-31.7, 12.3, 88.1])


def truth():
    data = np.zeros(SHAPE, np.uint8)
    for index, label in MARKS.items():
        data[index] = label
    return data


def oriented(code, oblique):
    """The labels along the axes of the code, and their affine (voxel centre to RAS mm)."""
    affine = np.eye(4)
    affine[:3, :3] = (TURN if oblique else np.eye(3)) @ np.diag(SPACING)
    affine[:3, 3] = ORIGIN
    image = nibabel.Nifti1Image(truth(), affine)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(code)))
    assert "".join(nibabel.aff2axcodes(turned.affine)) == code
    return np.asarray(turned.dataobj), turned.affine


def thresholds(fine):
    """Between background and the labels, in the units in which the network sees the marked volume; fine: samples a voxel
    and axis. What the program does is done here once with other means, in RAS: normalise, resample by nnU-Net's rule,
    the network's norms, and back by linear resampling: the mean of the samples around a voxel's centre, or the one there."""
    from skimage.transform import resize
    values = BRIGHTNESS[truth()].astype(float)
    values = (values - values.mean()) / values.std()
    grid = [fine * n for n in SHAPE]
    tile = np.zeros([16 * fine] * 3)
    if fine > 1:
        values = resize(values, grid, 3, mode="edge", anti_aliasing=False, clip=True)
    tile[tuple(map(slice, grid))] = values
    seen = tiny_model.standardised(tile)[tuple(map(slice, grid))]
    middle = slice((fine - 1) // 2, fine // 2 + 1)
    seen = seen.reshape(SHAPE[0], fine, SHAPE[1], fine, SHAPE[2], fine)[:, middle, :, middle, :, middle].mean((1, 3, 5))
    out = []
    for k in range(3):
        below, above = seen[truth() <= k].max(), seen[truth() > k].min()
        assert above > below + 0.5, (below, above)  # far more than rounding
        out.append((below + above) / 2)
    return out


def marker(folder, fine):
    """A model that turns every volume to RAS, and resamples it to 1 / fine of its spacing."""
    value = tiny_model.recipe("marker", labels=3, patch=[16 * fine] * 3, orientation="RAS",
                              spacing=[s / fine for s in SPACING[::-1]])
    path = str(folder / "marker.safetensors")
    return tiny_model.write(path, value, weights=tiny_model.brightness_tensors(value, thresholds(fine)))


# ---- Readers: labels [x][y][z] and the RAS affine, as the format's own programs see them ----


def read_nifti(path):
    return load(path)


def read_itk(path):
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, 3] = image.TransformIndexToPhysicalPoint((0, 0, 0))
    for axis in range(3):
        step = [int(axis == k) for k in range(3)]
        affine[:3, axis] = np.array(image.TransformIndexToPhysicalPoint(step)) - affine[:3, 3]
    return sitk.GetArrayFromImage(image).T, LPS @ affine


def read_nrrd(path):
    data, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    return data, LPS @ affine


def read_slicer(path):
    """By the names of the segments: the label's value is looked up as Slicer does."""
    segmentation = slicerio.read_segmentation(str(path))
    names = [name for name, _ in tiny_model.LABELS[:3]]
    assert slicerio.segment_names(segmentation) == names
    data = np.zeros(segmentation["voxels"].shape, np.uint8)
    for k, name in enumerate(names):
        segment = slicerio.segment_from_name(segmentation, name)
        assert np.allclose(segment["color"], np.array(tiny_model.LABELS[k][1]) / 255, atol=1e-5)
        data[segmentation["voxels"] == segment["labelValue"]] = k + 1
    return data, LPS @ segmentation["ijkToLPS"]


READERS = {"nii.gz": [read_nifti], "nrrd": [read_nrrd, read_itk], "mha": [read_itk],
           "seg.nrrd": [read_slicer, read_nrrd, read_itk]}


# ---- Sources ----


def write_nifti(path, data, affine):
    nibabel.save(nibabel.Nifti1Image(data, affine), str(path))


def write_itk(path, data, affine):
    image = sitk.GetImageFromArray(data.T)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    image.SetOrigin(lps[:3, 3])
    sitk.WriteImage(image, str(path))


SOURCES = {"nii.gz": write_nifti, "nrrd": write_itk, "mha": write_itk}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Folder, and by case name the labels and the affine that the masks must have."""
    folder, expected = tmp_path_factory.mktemp("volumes"), {}
    for code, oblique, ending in itertools.product(CODES, (False, True), SOURCES):
        labels, affine = oriented(code, oblique)
        name = f"{code}_{'oblique' if oblique else 'straight'}_{ending.split('.')[0]}"
        SOURCES[ending](folder / f"{name}.{ending}", BRIGHTNESS[labels].astype(np.int16), affine)
        expected[name] = labels, affine
    return folder, expected


def corner_error(a, b, shape):
    """Largest distance in mm between the corners of two grids."""
    ends = np.array([[x, y, z, 1] for x in (0, shape[0] - 1) for y in (0, shape[1] - 1) for z in (0, shape[2] - 1)])
    return np.linalg.norm((ends @ (a - b).T)[:, :3], axis=1).max()


def masks_of(folder, tmp_path, form, fine=1):
    """The folder of the masks that the model gives to the cases of a folder."""
    out = tmp_path / "out"
    result = run("segment", folder, "-m", marker(tmp_path, fine), "-o", out, "--format", form, "-q")
    if "not in this build" in result.err:
        result.error_line(1)
        pytest.skip(f"{form} is not in this build")
    assert result.code == 0 and result.err == "", result.err
    return out


def round_trip(volumes, tmp_path, ending, fine=1):
    folder, expected = volumes
    out = masks_of(folder, tmp_path, ending, fine)
    assert [n for n in files(out) if n.endswith("." + ending)] == sorted(f"{n}.{ending}" for n in expected)
    for name, (labels, affine, *_) in expected.items():
        for reader in READERS[ending]:
            data, found = reader(out / f"{name}.{ending}")
            assert data.shape == labels.shape, (name, reader.__name__)
            wrong = np.argwhere(data != labels)
            assert not len(wrong), (name, reader.__name__, wrong[:5].tolist())
            assert corner_error(found, affine, labels.shape) <= 1e-3, (name, reader.__name__)


def test_codes():
    """48 different ones, every mark alone at its place and all labels there: else the tests below show little."""
    assert len(set(CODES)) == 48 and len({tuple(oriented(c, True)[1].ravel()) for c in CODES}) == 48
    assert len({oriented(c, False)[0].tobytes() for c in CODES}) == 48
    assert np.linalg.det(TURN) > 0.99 and 10 < np.degrees(np.arccos(np.diag(TURN).min())) < 30


@pytest.mark.parametrize("ending", READERS)
def test_volumes_of_all_orientations(volumes, tmp_path, ending):
    round_trip(volumes, tmp_path, ending)


@pytest.mark.parametrize("fine", [2, 3])
def test_volumes_that_are_resampled(volumes, tmp_path, fine):
    """A shift by half a voxel on the way there or back would move the marks."""
    round_trip(volumes, tmp_path, "nii.gz", fine)


# ---- DICOM ----

PLANES = {  # row and column direction, LPS
    "axial": ([1, 0, 0], [0, 1, 0]), "axial prone": ([-1, 0, 0], [0, -1, 0]), "axial flipped": ([-1, 0, 0], [0, 1, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1]), "sagittal flipped": ([0, -1, 0], [0, 0, -1]),
    "coronal": ([1, 0, 0], [0, 0, -1]), "coronal flipped": ([1, 0, 0], [0, 0, 1]),
}


def dicom_codes():
    """The 24 axis codes that rows, columns and their normal can make: in LPS right-handed."""
    return [code for code in CODES if np.linalg.det(LPS[:3, :3] @ oriented(code, False)[1][:3, :3]) > 0]


def write_series(folder, labels, affine, single_file):
    """labels [column][row][slice]; slices in files whose names and numbers tell nothing of their order. Returns the
    SOP instance of every slice, and the frame's number in it (None: a file a slice)."""
    pydicom = pytest.importorskip("pydicom")
    from new_image import new_image, new_uids
    from pydicom.uid import CTImageStorage, EnhancedMRImageStorage
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    orientation = [f"{v:.10f}" for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
    places = [[f"{v:.8f}" for v in lps[:3, 3] + lps[:3, 2] * k] for k in range(labels.shape[2])]
    stored = BRIGHTNESS[labels].astype("<u2").T  # [slice][row][column]
    order = np.random.default_rng(len(str(folder))).permutation(len(places))
    folder.mkdir(parents=True)

    def blank(kind):
        d = new_image(kind, *stored.shape[1:], uids)
        d.PatientName, d.PatientID = "A^B", "1"
        d.PatientBirthDate = d.PatientSex = d.StudyDate = d.StudyTime = d.StudyID = d.AccessionNumber = ""
        d.ReferringPhysicianName = ""
        d.SeriesNumber, d.ImageType = 3, ["ORIGINAL", "PRIMARY", "M", "NONE"]
        return d

    def item(**values):
        d = pydicom.Dataset()
        for key, value in values.items():
            setattr(d, key, value)
        return d

    uids = new_uids()
    if single_file:
        d = blank(EnhancedMRImageStorage)
        d.Modality, d.NumberOfFrames, d.InstanceNumber = "MR", len(places), 1
        measures = item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=1)
        d.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
        d.PerFrameFunctionalGroupsSequence = [
            item(PlanePositionSequence=[item(ImagePositionPatient=places[k])],
                 PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)]) for k in order]
        d.PixelData = stored[order].tobytes()
        d.save_as(folder / "frames", enforce_file_format=True)
        return [(d.SOPInstanceUID, int(np.flatnonzero(order == k)[0]) + 1) for k in range(len(order))]
    instances = {}
    for number, k in enumerate(order):
        d = blank(CTImageStorage)
        d.Modality, d.InstanceNumber, d.RescaleSlope, d.RescaleIntercept = "CT", number + 1, 1, 0
        d.ImagePositionPatient, d.ImageOrientationPatient = places[k], orientation
        d.PixelSpacing, d.SliceThickness = [spacing[1], spacing[0]], 1
        d.PixelData = stored[k].tobytes()
        d.save_as(folder / f"IM{number:03d}", enforce_file_format=True)
        instances[k] = d.SOPInstanceUID, None
    return [instances[k] for k in range(len(order))]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """As volumes(), with what write_series() returns."""
    folder, expected = tmp_path_factory.mktemp("series"), {}
    cases = itertools.product(dicom_codes(), (False, True), (False, True))
    for code, oblique, single_file in cases:
        labels, affine = oriented(code, oblique)
        name = f"{code}_{'oblique' if oblique else 'straight'}_{'frames' if single_file else 'slices'}"
        expected[name] = labels, affine, write_series(folder / name, labels, affine, single_file)
    return folder, expected


def test_planes():
    """Axial, sagittal, coronal and flipped ones are among the 24."""
    made = set()
    for code in dicom_codes():
        directions = LPS[:3, :3] @ np.sign(np.round(oriented(code, False)[1][:3, :2], 9))
        made.add((tuple(directions[:, 0]), tuple(directions[:, 1])))
    assert len(made) == 24
    for rows, columns in PLANES.values():
        assert (tuple(rows), tuple(columns)) in made


@pytest.mark.parametrize("ending", READERS)
def test_series_of_all_orientations(series, tmp_path, ending):
    round_trip(series, tmp_path, ending)


@pytest.mark.parametrize("fine", [2])
def test_series_that_are_resampled(series, tmp_path, fine):
    """A shift by half a voxel on the way there or back would move the marks."""
    round_trip(series, tmp_path, "nii.gz", fine)


def labels_of_segments(segmentation, pixels):
    """Segment numbers to labels, by the segments' names."""
    out = np.zeros(pixels.shape, np.uint8)
    for number in segmentation.segment_numbers:
        name = segmentation.get_segment_description(number).segment_label
        out[pixels == number] = [n for n, _ in tiny_model.LABELS].index(name) + 1
    return out


def test_series_as_dicom_seg(series, tmp_path):
    """highdicom finds the marks on the slices that a SEG refers to (index), and by its own positions (world)."""
    highdicom = pytest.importorskip("highdicom")
    folder, expected = series
    out = masks_of(folder, tmp_path, "dcmseg")
    assert [n for n in files(out) if n.endswith(".dcm")] == sorted(f"{n}.dcm" for n in expected)
    for name, (labels, affine, instances) in expected.items():
        seg = highdicom.seg.segread(out / f"{name}.dcm")
        options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
        if instances[0][1] is None:
            pixels = seg.get_pixels_by_source_instance([uid for uid, _ in instances], **options)
        else:
            pixels = seg.get_pixels_by_source_frame(instances[0][0], [frame for _, frame in instances], **options)
        assert np.array_equal(labels_of_segments(seg, pixels).T, labels), name
        volume = seg.get_volume(combine_segments=True)  # [slice][row][column] of the frames' extent; its affine is LPS
        found = labels_of_segments(seg, volume.array)
        places = np.argwhere(found) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        wanted = np.argwhere(labels) @ (LPS @ affine)[:3, :3].T + (LPS @ affine)[:3, 3]
        distances = np.linalg.norm(places[:, None] - wanted[None], axis=2)
        nearest = distances.argmin(0)
        assert len(places) == len(wanted) and distances.min(0).max() <= 1e-3, name
        assert np.array_equal(found[found > 0][nearest], labels[labels > 0]), name
