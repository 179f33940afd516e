"""A result of the program in an MRML scene, saved by Slicer, and read again."""
import gzip
import json
import os

import nibabel
import numpy as np
import pytest
import slicer
import slicerio
import vtk
from conftest import nodes
from mrml import (EMPTY, LABELS, MODELS, SAMPLE, Segmentation, entry_of, ijk_to_ras, image_to_world, mask, matrix, save,
                  save_volume, segment)
from VoxMambaLib import Importer, Labels


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


def on_grid_of(volume, values, affine):
    """The values of a file with this affine as they lie on the volume's grid: Slicer turns left-handed files round when it reads them."""
    size = np.array(values.shape)
    step = np.linalg.inv(ijk_to_ras(volume)) @ affine
    axes = np.rint(step[:3, :3]).astype(int)
    assert np.allclose(axes, step[:3, :3], atol=1e-4) and (np.abs(axes).sum(0) == 1).all()
    first = np.where(axes.sum(1) < 0, np.abs(axes) @ size - 1, 0)
    assert np.allclose(first, step[:3, 3], atol=1e-3)
    order = np.abs(axes).argmax(1)
    return np.flip(values.transpose(order), [i for i in range(3) if axes[i].sum() < 0])


@pytest.fixture(params=AFFINES)
def case(request, app, tmp_path, model):
    """A volume that Slicer has loaded, and the program's results of the file: (volume node, .seg.nrrd, values of the .nii.gz on the
    volume's grid)."""
    scan = scan_file(tmp_path / "Zürich übung" / "скан 1.nii.gz", AFFINES[request.param])
    result, plain = scan.parent / "résultat 1.seg.nrrd", scan.parent / "résultat 1.nii.gz"
    for out in (result, plain):
        segment(scan, "-m", model, "-o", out)
    volume = app.io_manager.load_volumes(str(scan))[0]
    return volume, result, on_grid_of(volume, mask(plain), AFFINES[request.param])


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


def test_result_in_the_scene_saved_and_reloaded(case, scene, tmp_path, request):
    volume, result, values = case
    found = set(np.unique(values)) - {0}
    assert found == {l["value"] for l in LABELS} - {EMPTY}, found
    node = Importer.import_segmentation(scene, result, volume)
    check(node, volume, values)
    assert node.GetName() == f"{volume.GetName()} segmentation"
    assert node.GetDisplayNode().GetVisibility() and node.GetStorageNode() is None
    assert not Segmentation(node).voxels(EMPTY).any()
    affines = [image_to_world(Segmentation(node).labelmap(l["value"])) for l in LABELS]
    if np.linalg.det(AFFINES[request.node.callspec.params["case"]]) > 0:  # the same grid: Slicer never resamples it
        assert all(np.allclose(a, ijk_to_ras(volume), rtol=0, atol=1e-9) for a in affines)

    for crop in (False, True):
        saved = tmp_path / f"sauvé {crop}.seg.nrrd"
        save(node, saved, crop)
        size = slicerio.read_segmentation(str(saved))["voxels"].size
        assert size < values.size if crop else size == values.size
        check(Importer.import_segmentation(scene, saved, volume, "again"), volume, values)


def test_other_readers(case):
    """slicerio reads the program's file: values, names and codes, where the volume is."""
    volume, result, values = case
    read = slicerio.read_segmentation(str(result))
    affine = np.diag([-1, -1, 1, 1]) @ read["ijkToLPS"]
    assert np.array_equal(on_grid_of(volume, read["voxels"], affine), values)
    by_value = {s["labelValue"]: s for s in read["segments"]}
    as_pynrrd = {l["value"]: l["name"].replace("\\", "\\\\").encode("ascii", "ignore").decode() for l in LABELS}  # its way with both
    assert {v: s["name"] for v, s in by_value.items()} == as_pynrrd
    for label in LABELS:
        codes = by_value[label["value"]].get("terminology")
        if "type" not in label:
            assert not codes
            continue
        assert codes["type"] == list(label["type"].values())
        assert codes["category"] == list(label["category"].values())
        assert codes.get("typeModifier") == (list(label["modifier"].values()) if "modifier" in label else None)


def test_sample_scan(app, scene, tmp_path):
    """The shipped model on the sample scan; the labels are those of `voxmamba models --json`."""
    for ending in ("seg.nrrd", "nii.gz"):
        segment(SAMPLE, "-m", "hippocampus", "-o", tmp_path / f"out.{ending}")
    volume = app.io_manager.load_volumes(SAMPLE)[0]
    node = Importer.import_segmentation(scene, tmp_path / "out.seg.nrrd", volume)
    with open(os.path.join(MODELS, "hippocampus.safetensors"), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    labels = json.loads(header["__metadata__"]["voxmamba"])["labels"]
    check(node, volume, mask(tmp_path / "out.nii.gz"), labels)
    for index, label in enumerate(labels):  # as shown: names and colours of the display
        name = node.GetSegmentation().GetNthSegmentID(index)
        assert np.allclose(node.GetDisplayNode().GetSegmentColor(name), np.array(label["rgb"]) / 255, atol=1e-5)
    node.CreateClosedSurfaceRepresentation()
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(node.GetSegmentation().GetNthSegmentID(0), surface)
    assert surface.GetNumberOfPoints() > 100


def test_of_a_volume_as_slicer_hands_it_over(app, scene, tmp_path, model):
    """Through Slicer's own .nii, whose header holds single precision."""
    scan = scan_file(tmp_path / "scan.nii.gz", AFFINES["oblique"])
    volume = app.io_manager.load_volumes(str(scan))[0]
    shift = np.array([0.123456789, -271.828182846, 314.159265359])  # no single-precision numbers
    to_ras = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(to_ras)
    for r in range(3):
        to_ras.SetElement(r, 3, to_ras.GetElement(r, 3) + shift[r])
    volume.SetIJKToRASMatrix(to_ras)
    save_volume(volume, tmp_path / "handed.nii")
    for ending in ("seg.nrrd", "nii.gz"):
        segment(tmp_path / "handed.nii", "-m", model, "-o", tmp_path / f"out.{ending}")
    check(Importer.import_segmentation(scene, tmp_path / "out.seg.nrrd", volume), volume, mask(tmp_path / "out.nii.gz"))


def test_source_under_a_transform(app, scene, tmp_path, model):
    """Slicer hands over a volume without its parent transform: the segmentation goes under the same one."""
    scan = scan_file(tmp_path / "scan.nii.gz", AFFINES["anisotropic"])
    for ending in ("seg.nrrd", "nii.gz"):
        segment(scan, "-m", model, "-o", tmp_path / f"out.{ending}")
    volume = app.io_manager.load_volumes(str(scan))[0]
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    moved = vtk.vtkTransform()
    moved.Translate(10, 20, 30)
    moved.RotateZ(30)
    transform.SetMatrixTransformToParent(moved.GetMatrix())
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = Importer.import_segmentation(scene, tmp_path / "out.seg.nrrd", volume)
    assert node.GetParentTransformNode() is transform
    check(node, volume, mask(tmp_path / "out.nii.gz"))
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.GetImageData().GetDimensions()])).reshape(3, -1)
    world = matrix(moved.GetMatrix()) @ ijk_to_ras(volume) @ np.vstack([corners, np.ones(8)])
    assert all(bounds[2 * i] > world[i].min() - 2 and bounds[2 * i + 1] < world[i].max() + 2 for i in range(3))


def hierarchy_items(scene):
    items = vtk.vtkIdList()
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return [items.GetId(i) for i in range(items.GetNumberOfIds())]


@pytest.fixture
def result(app, tmp_path, model):
    scan = scan_file(tmp_path / "scan.nii.gz", AFFINES["identity"])
    segment(scan, "-m", model, "-o", tmp_path / "out.seg.nrrd")
    return app.io_manager.load_volumes(str(scan))[0], tmp_path / "out.seg.nrrd"


def test_place_in_the_subject_hierarchy(scene, result):
    volume, path = result
    hierarchy = scene.GetSubjectHierarchyNode()
    subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "subject")
    study = hierarchy.CreateStudyItem(subject, "study")
    hierarchy.CreateItem(study, volume)
    nodes_of_it = [Importer.import_segmentation(scene, path, volume, "mask") for _ in range(2)]
    assert [n.GetName() for n in nodes_of_it] == ["mask", "mask_1"]
    for node in nodes_of_it:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_no_subject_hierarchy(result):
    """A bare scene, and a source of another one."""
    volume, path = result
    bare = slicer.vtkMRMLScene()
    copy = bare.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "copy")
    copy.SetAndObserveImageData(volume.GetImageData())
    assert Importer.import_segmentation(bare, path, copy).GetSegmentation().GetNumberOfSegments() == len(LABELS)


def broken_files(path, folder):
    data = path.read_bytes()
    header = data.index(b"\n\n") + 2
    yield "there is no such file", folder / "gone.seg.nrrd"
    for name, content in {"empty": b"", "no header": data[:100], "cut header": data[:header - 1], "no data": data[:header],
                          "cut data": data[:-40], "other": b"\x1f\x8b" + data, "text": b"name\tvalue\n",
                          "bad data": data[:header + 20] + b"\0" * 100 + data[header + 120:]}.items():
        file = folder / f"{name}.seg.nrrd"
        file.write_bytes(content)
        yield "no whole .seg.nrrd", file


def test_failures_leave_nothing(scene, result, tmp_path):
    volume, path = result
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    before, items = nodes(scene), hierarchy_items(scene)
    for reason, file in broken_files(path, tmp_path):
        with pytest.raises(Importer.ImportFailed, match=reason) as failed:
            Importer.import_segmentation(scene, file, volume)
        assert str(file) in str(failed.value) and "\n" not in str(failed.value)
        assert nodes(scene) == before and hierarchy_items(scene) == items
    header = path.read_bytes().split(b"\n\n")[0]
    lines = [line for line in header.split(b"\n") if not line.startswith(b"Segment")]
    voxels = np.prod(volume.GetImageData().GetDimensions())
    no_segment = tmp_path / "none.seg.nrrd"
    no_segment.write_bytes(b"\n".join(lines) + b"\n\n" + gzip.compress(bytes(2 * int(voxels))))
    with pytest.raises(Importer.ImportFailed, match="no segment"):
        Importer.import_segmentation(scene, no_segment, volume)
    assert nodes(scene) == before and hierarchy_items(scene) == items


def test_source_without_an_image(scene, result):
    _, path = result
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    before = nodes(scene)
    with pytest.raises(Importer.ImportFailed, match="no image"):
        Importer.import_segmentation(scene, path, empty)
    assert nodes(scene) == before
