"""Volumes of a real MRML scene through the real program and back (VoxMambaLib/Segmenter.py, Volumes.py)."""
# needs: slicer trame_slicer
import os
import resource

import mrml_scene
import nrrd
import numpy as np
import pytest
import slicer
import support
import vtk
from trame_slicer.core import SlicerApp
from VoxMambaLib import Volumes
from VoxMambaLib.Runner import Settings
from VoxMambaLib.Segmenter import summary

SETTINGS = Settings(model="hippocampus", threads=2)


@pytest.fixture(scope="module")
def application():
    return SlicerApp()


def ids(scene):
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


@pytest.fixture
def scene(application):
    before = ids(application.scene)
    yield application.scene
    for name in ids(application.scene) - before:
        application.scene.RemoveNode(application.scene.GetNodeByID(name))


@pytest.fixture
def temporary(tmp_path):
    folder = tmp_path / "tmp ü 影"
    folder.mkdir()
    return folder


def segments(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]


def turned(degrees, axis):
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return np.array([[transform.GetMatrix().GetElement(i, j) for j in range(4)] for i in range(4)])


OBLIQUE = turned(23, (1, 2, 3)) @ np.diag([0.7, 1 / 3, 1.1, 1])
OBLIQUE[:3, 3] = [-123.456789012345, 1 / 7, 998.0000001]
SHEARED = OBLIQUE @ np.array([[1, 0.2, 0, 0], [0, 1, -0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED, np.diag([-1.0, 1, 1, 1])], ids=["oblique", "sheared", "flipped"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_export_keeps_voxels_and_grid(scene, tmp_path, affine, dtype):
    """To the last digits of a double: NIfTI would round to float, 1e-5 mm here."""
    data = np.random.default_rng(1).integers(0, 200, (5, 6, 7)).astype(dtype)
    node = mrml_scene.add_volume(scene, "scan", data, affine)
    before, path = ids(scene), str(tmp_path / "größe 1.nrrd")
    Volumes.export(node, path, scene)
    read, header = nrrd.read(path)
    assert (read == data).all() and read.dtype == data.dtype and header["encoding"] == "raw"
    assert header["space"] == "left-posterior-superior"
    lps = np.column_stack([header["space directions"].T, header["space origin"]])
    assert np.abs(np.diag([-1.0, -1, 1]) @ lps - affine[:3]).max() < 1e-12
    assert ids(scene) == before and node.GetStorageNode() is None


def test_a_volume_that_could_not_be_written_whole(scene, tmp_path):
    """No folder can be there; and a file that ends early, as on a full disk."""
    node = mrml_scene.add_volume(scene)
    before = ids(scene)
    (tmp_path / "a file").write_text("")
    with pytest.raises(Volumes.VolumeRefused, match="could not be written"):
        Volumes.export(node, str(tmp_path / "a file" / "a.nrrd"), scene)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(Volumes.VolumeRefused, match="could not be written"):
            Volumes.export(node, str(tmp_path / "a.nrrd"), scene)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ids(scene) == before


def test_volumes_that_are_refused(scene):
    data = np.ones((3, 4, 5), np.uint8)
    colours = mrml_scene.add_volume(scene, "photo", data, kind="vtkMRMLVectorVolumeNode", components=3)
    for node, words in ((None, "Choose a volume"), (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing"), "nothing holds no image"),
                        (mrml_scene.add_volume(scene, "labels", data, kind="vtkMRMLLabelMapVolumeNode"), "labels is a label map"),
                        (colours, "photo has 3 values"), (scene.AddNewNodeByClass("vtkMRMLModelNode", "surface"), "surface holds no image")):
        with pytest.raises(Volumes.VolumeRefused, match=words):
            Volumes.check(node, scene)
    assert Volumes.check(mrml_scene.add_volume(scene, "scan", data), scene) == []


def under_transform(scene, node, bent=False):
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode" if bent else "vtkMRMLLinearTransformNode", "moved")
    if bent:
        plates = vtk.vtkThinPlateSplineTransform()
        points = [vtk.vtkPoints(), vtk.vtkPoints()]
        for x, y, z in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (20, 30, 10)):
            points[0].InsertNextPoint(x, y, z)
            points[1].InsertNextPoint(x + (3 if x == 20 else 0), y, z)
        plates.SetSourceLandmarks(points[0])
        plates.SetTargetLandmarks(points[1])
        plates.SetBasisToR()
        transform.SetAndObserveTransformToParent(plates)
    else:
        transform.SetMatrixTransformToParent(mrml_scene.matrix(turned(40, (0, 0, 1))))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def test_transforms_are_said(scene):
    node = mrml_scene.add_volume(scene, "scan", np.ones((3, 4, 5), np.uint8))
    under_transform(scene, node)
    (note,) = Volumes.check(node, scene)
    assert "scan is under the transform moved" in note and "harden" not in note
    under_transform(scene, node, bent=True)
    (note,) = Volumes.check(node, scene)
    assert "bends space: harden it first" in note


def test_item_of_a_sequence_is_said(scene):
    for kind in (slicer.vtkMRMLSequenceNode, slicer.vtkMRMLSequenceBrowserNode):
        scene.RegisterNodeClass(kind())  # Slicer does so when it loads its module of sequences
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    volume = mrml_scene.add_volume(scene, "frame", np.ones((3, 4, 5), np.uint8))
    for value in ("0", "1", "2"):
        sequence.SetDataNodeAtValue(volume, value)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "player")
    browser.AddSynchronizedSequenceNode(sequence)
    browser.AddProxyNode(volume, sequence, False)
    browser.SetSelectedItemNumber(1)
    (note,) = Volumes.check(volume, scene)
    assert "is a sequence" in note and "(number 2)" in note


def test_one_volume_to_a_segmentation(scene, temporary):
    volume = mrml_scene.add_volume(scene, "größe 1")
    transform = under_transform(scene, volume)
    runs = mrml_scene.Runs(scene, temporary)
    runs.start([volume], SETTINGS)
    assert runs.segmenter.running
    with pytest.raises(RuntimeError, match="running already"):
        runs.start([volume], SETTINGS)
    (result,) = runs.pump()
    assert (result.outcome.state, result.outcome.message) == ("done", "")
    assert segments(result.segmentation) == ["anterior", "posterior"]
    assert result.segmentation.GetName() == "größe 1 hippocampus segmentation"
    assert result.segmentation.GetTransformNodeID() == transform.GetID()
    assert result.segmentation.GetNodeReference("referenceImageGeometryRef").GetID() == volume.GetID()
    assert result.statistics.GetNumberOfRows() == 2
    assert any("under the transform" in event.value for _, event in runs.events if event.kind == "text")
    assert runs.results == [(0, result)] and os.listdir(temporary) == []
    # A second run does not take the first one's name, nor its nodes.
    again = mrml_scene.Runs(scene, temporary)
    again.start([volume], SETTINGS)
    (second,) = again.pump()
    assert second.segmentation.GetName() != result.segmentation.GetName()
    assert scene.IsNodePresent(result.segmentation)


def test_many_volumes_each_with_its_own_outcome(scene, temporary):
    good = mrml_scene.add_volume(scene, "good")
    flat = mrml_scene.add_volume(scene, "flat", np.zeros((40, 50, 40), np.int16))
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    gone = mrml_scene.add_volume(scene, "gone")
    runs = mrml_scene.Runs(scene, temporary)
    volumes = [flat, empty, good, gone, good]
    runs.start(volumes, SETTINGS)
    scene.RemoveNode(gone)
    results = runs.pump()
    assert [each.outcome.state for each in results] == ["failed", "failed", "done", "failed", "done"]
    assert [index for index, _ in runs.results] == [0, 1, 2, 3, 4]
    assert "flat: " in results[0].outcome.message and "constant" in results[0].outcome.message
    assert "empty holds no image" in results[1].outcome.message and "gone was removed" in results[3].outcome.message
    assert results[2].segmentation is not results[4].segmentation and results[3].segmentation is None
    assert summary(results) == "2 segmented, 3 failed"
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2 and os.listdir(temporary) == []


def test_a_volume_that_is_removed_while_it_is_segmented(scene, temporary):
    volume = mrml_scene.add_volume(scene)
    runs = mrml_scene.Runs(scene, temporary)
    runs.start([volume], SETTINGS)
    scene.RemoveNode(volume)
    (result,) = runs.pump()
    assert result.outcome.state == "failed" and "removed from the scene" in result.outcome.message
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0 and os.listdir(temporary) == []


@pytest.mark.parametrize("how", ["cancel", "shut_down"])
def test_cancel_leaves_scene_and_disk_as_they_were(scene, temporary, how):
    volume = mrml_scene.add_volume(scene)
    before = ids(scene)
    runs = mrml_scene.Runs(scene, temporary)
    runs.start([volume, volume, volume], SETTINGS)

    def stop():
        if any(event.kind == "comment" and event.value == "Segmenting" for _, event in runs.events):
            getattr(runs.segmenter, how)()
    results = runs.pump(stop)
    assert [each.outcome.state for each in results] == ["cancelled"] * 3 and len(runs.processes) == 1
    assert not runs.segmenter.running and ids(scene) == before and os.listdir(temporary) == []
    assert summary(results) == "3 cancelled" and summary([]) == "nothing to do"
