"""What the window does, on stand-ins for its widgets (window_stand_ins.py), real MRML nodes and the real program."""
import os

import mrml_scene
import numpy as np
import pytest
import slicer
import stand_ins
from installed import place  # noqa: F401, a fixture


@pytest.fixture
def widget(place):  # noqa: F811
    module, _, temporary = place
    slicer.mrmlScene.Clear()
    module.VoxMambaParameterNode.kept.clear()
    mrml_scene.add_volume(slicer.mrmlScene, "scan")
    made = module.VoxMambaWidget()
    made.setup()
    yield made
    made.cleanup()
    assert made.observed == [] and os.listdir(temporary) == []


def finish(widget, during=None):
    while widget.logic.running:
        stand_ins.process_events()
        if during and during():
            during = None


def states(widget):
    return widget.ui.applyButton.enabled, widget.ui.applyManyButton.enabled, widget.ui.cancelButton.enabled


def names(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]


def test_ready_to_press_the_button(widget):
    assert widget._parameterNode.inputVolume.GetName() == "scan"
    assert widget.ui.modelSelector.items == ["Automatic", "head_neck 1.0.0", "hippocampus 1.1.0"]
    assert "fits" in widget.ui.modelInfoLabel.text and widget.ui.labelsList.states() == {}
    assert states(widget) == (True, False, False)
    assert "Tick the volumes" in widget.ui.applyManyButton.toolTip and widget.ui.errorLabel.text == ""


def test_what_a_model_is_for(widget):
    widget._parameterNode.model = "hippocampus"
    assert widget.ui.modelSelector.currentIndex == 2
    assert "MR, T1w" in widget.ui.modelInfoLabel.text and "CC-BY-SA-4.0" in widget.ui.modelInfoLabel.text
    assert widget.ui.labelsList.states() == {"anterior": True, "posterior": True}
    assert all(len(item.data) == 3 for item in widget.ui.labelsList.items)
    widget._parameterNode.labels = "anterior"
    widget.ui.modelSelector.setCurrentIndex(1)  # its segments are others
    assert (widget._parameterNode.model, widget._parameterNode.labels) == ("head_neck", "")
    assert len(widget.ui.labelsList.states()) == 5 and "mandible" in widget.ui.labelsList.states()
    widget.ui.modelSelector.setCurrentIndex(0)
    assert widget._parameterNode.model == "" and widget.ui.labelsList.states() == {}


def test_a_scene_with_a_model_that_is_not_here(widget):
    widget._parameterNode.labels = "liver"
    widget._parameterNode.model = "abdomen"
    assert "abdomen is not installed" in widget.ui.errorLabel.text
    assert (widget._parameterNode.model, widget._parameterNode.labels, widget.ui.modelSelector.currentIndex) == ("", "", 0)
    assert states(widget) == (True, False, False)


def test_one_volume(widget):
    widget.ui.applyButton.click()
    assert states(widget) == (False, False, True) and "running" in widget.ui.applyButton.toolTip
    finish(widget)
    bar = widget.ui.progressBar.values
    assert bar[0] == 0 and bar == sorted(bar) and bar[-1] == 1000
    assert names(widget.ui.show3DButton.node) == ["anterior", "posterior"] and widget.ui.statisticsView.node.GetNumberOfRows() == 2
    assert "Segmenting" in widget.ui.logText.text and "anterior" in widget.ui.logText.text
    assert "CPU" in widget.ui.logText.text
    assert widget.ui.stageLabel.text == "1 segmented" and states(widget) == (True, False, False)


def test_only_the_ticked_segments(widget):
    widget._parameterNode.model = "hippocampus"
    anterior, posterior = widget.ui.labelsList.items
    anterior.setCheckState(0)
    assert widget._parameterNode.labels == "posterior" and widget.ui.labelsList.states() == {"anterior": False, "posterior": True}
    widget.ui.applyButton.click()
    finish(widget)
    assert names(widget.ui.show3DButton.node) == ["posterior"]
    posterior.setCheckState(0)
    assert widget._parameterNode.labels == "" and widget.ui.labelsList.states() == {"anterior": True, "posterior": True}
    assert "all are taken" in widget.ui.errorLabel.text
    widget._parameterNode.labels = "anterior"  # as from a scene that is loaded
    assert widget.ui.labelsList.states() == {"anterior": True, "posterior": False}
    widget._parameterNode.labels = "posterior"
    assert widget.ui.labelsList.states() == {"anterior": False, "posterior": True} and widget._parameterNode.labels == "posterior"


def test_warnings_are_seen_without_the_log(widget):
    """Of the volume's transform before the run, and the program's: here that the field of view is not the model's."""
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    data = np.random.default_rng(0).normal(100, 30, (50, 100, 50)).astype(np.int16)
    volume = mrml_scene.add_volume(slicer.mrmlScene, "large", data)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    widget._parameterNode.inputVolume, widget._parameterNode.model = volume, "hippocampus"
    widget._parameterNode.force, widget._parameterNode.step = True, 1.0
    widget.ui.applyButton.click()
    finish(widget)
    first, *notes = widget.ui.stageLabel.text.split("\n")
    assert first == "1 segmented" and len(notes) == 2
    assert "under the transform moved" in notes[0] and "mm" in notes[1], notes


def test_an_error_is_shown_until_the_next_run(widget):
    flat = mrml_scene.add_volume(slicer.mrmlScene, "flat", np.zeros((40, 50, 40), np.int16))
    good, widget._parameterNode.inputVolume = widget._parameterNode.inputVolume, flat
    widget.ui.applyButton.click()
    finish(widget)
    assert "flat: " in widget.ui.errorLabel.text and "constant" in widget.ui.errorLabel.text and widget.ui.errorLabel.visible
    assert widget.ui.progressBar.values[-1] == 0 and widget.ui.stageLabel.text == "1 failed"
    widget._parameterNode.inputVolume = good
    widget.ui.applyButton.click()
    assert not widget.ui.errorLabel.visible
    finish(widget)
    assert widget.ui.stageLabel.text == "1 segmented"


def test_many_volumes(widget):
    flat = mrml_scene.add_volume(slicer.mrmlScene, "flat", np.zeros((40, 50, 40), np.int16))
    good = widget._parameterNode.inputVolume
    widget.ui.volumesSelector.tick(flat, good)
    assert states(widget) == (True, True, False)
    for _ in range(2):  # the second run's table begins anew
        widget.ui.applyManyButton.click()
        del widget.ui.progressBar.values[:]
        finish(widget)
        bar = widget.ui.progressBar.values
        assert bar[:-1] == sorted(bar[:-1]) and max(bar) == 1000 and bar[-1] == 0  # not all were segmented
        cells = widget.ui.outcomesTable.cells
        assert (cells[0, 0], cells[0, 1], cells[1, 0], cells[1, 1]) == ("flat", "failed", "scan", "done") and len(cells) == 6
        assert "constant" in cells[0, 2] and "anterior" in cells[1, 2]
        assert widget.ui.stageLabel.text == "1 segmented, 1 failed" and "table" in widget.ui.errorLabel.text


def test_cancel(widget):
    widget.ui.volumesSelector.tick(widget._parameterNode.inputVolume, widget._parameterNode.inputVolume)
    widget.ui.applyManyButton.click()

    def press():
        if "Segmenting" in widget.ui.logText.text:
            widget.ui.cancelButton.click()
            return True
    finish(widget, press)
    assert widget.ui.stageLabel.text == "2 cancelled" and states(widget) == (True, True, False)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_the_scene_is_closed_during_a_run(widget):
    widget.ui.applyButton.click()
    slicer.mrmlScene.Clear()  # tells StartCloseEvent and EndCloseEvent
    finish(widget)
    assert widget.ui.stageLabel.text == "1 cancelled" and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert widget._parameterNode is not None
    widget.exit()
    widget.enter()


def test_no_program_and_no_model(place, widget):  # noqa: F811
    module, _, _ = place
    program = module.programs_of(module.FOLDER).voxmamba
    os.chmod(program, 0o644)
    try:
        broken = module.VoxMambaWidget()
        broken.setup()
        assert "may not be run" in broken.ui.errorLabel.text and not broken.ui.applyButton.enabled
        assert broken.ui.applyButton.toolTip == "No model is installed"
        broken.cleanup()
    finally:
        os.chmod(program, 0o755)
