"""VoxMamba.py as it is installed, imported over stand-ins (stand_ins.py) and slicer-core: its logic and its self-tests, with the real
program. test_widget.py has the window."""
import os
import types

import mrml_scene
import numpy as np
import pytest
import slicer
import stand_ins
from installed import place  # noqa: F401, a fixture


@pytest.mark.parametrize("test", ["test_SampleScan", "test_Refused", "test_Cancel"])
def test_self_tests(place, test):
    module, _, temporary = place
    case = module.VoxMambaTest(test)
    case.setUp()
    getattr(case, test)()
    assert os.listdir(temporary) == []
    assert not any(process.connections() for process in stand_ins.QT.processes) and not stand_ins.QT.pending


def test_registration(place):
    """The sample is a file of the extension; the hooks are called when Slicer has started."""
    module, (registered, connected), _ = place
    made = module.VoxMamba(types.SimpleNamespace())
    assert made.parent.title == "VoxMamba" and made.parent.categories == ["Segmentation"]
    assert connected["startupCompleted()"] == [module.registerSampleData, module.loadTerminologies]
    module.registerSampleData()
    words = registered[-1]
    assert words["uris"].startswith("file:///") and words["uris"].endswith("hippocampus_380.nii.gz")
    # The keywords that Slicer 5.6 to 5.12 have.
    assert set(words) <= {"category", "sampleName", "uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName", "loadFiles",
                          "loadFileProperties", "checksums"}
    assert os.path.isfile(words["thumbnailFileName"])


def test_models_and_settings(place):
    module, _, _ = place
    logic = module.VoxMambaLogic()
    _, model = logic.models()
    text = module.modelText(model)
    assert model.description in text and "MR, T1w" in text and "CC-BY-SA-4.0" in text
    assert logic.settings(logic.getParameterNode(), model) == module.Settings(model="hippocampus")
    assert logic.settings(logic.getParameterNode(), None) == module.Settings()
    changed = types.SimpleNamespace(model="", labels="anterior,posterior", device="cpu", tta=True, precision="fp32", step=0.25,
                                    keepLargest=True, removeSmall=3.0, threads=2, memory=4.0, force=True)
    assert logic.settings(changed, model) == module.Settings(
        model="hippocampus", device="cpu", tta=True, labels=("anterior", "posterior"), keep_largest=True, remove_small=3.0, step=0.25,
        precision="fp32", threads=2, memory=4.0, force=True)


def test_a_script_gets_result_and_error(place):
    module, _, temporary = place
    slicer.mrmlScene.Clear()
    logic = module.VoxMambaLogic()
    result = logic.segment(mrml_scene.add_volume(slicer.mrmlScene, "flat", np.zeros((40, 50, 40), np.int16)), module.Settings(threads=2))
    assert result.outcome.state == "failed" and "flat: " in result.outcome.message and os.listdir(temporary) == []
    assert not logic.running
    logic.cancel()  # nothing runs: nothing happens
    logic.shutDown()


def test_one_run_at_a_time_for_a_logic(place):
    """Else cancel() would not reach the first. Two logics may run beside each other."""
    module, _, temporary = place
    slicer.mrmlScene.Clear()
    logic, other, states = module.VoxMambaLogic(), module.VoxMambaLogic(), []
    volume = mrml_scene.add_volume(slicer.mrmlScene)
    hears = (lambda *_: None, lambda _, result: states.append(result.outcome.state), lambda _: None)
    logic.start([volume], module.Settings(threads=2), *hears)
    with pytest.raises(RuntimeError, match="running already"):
        logic.start([volume], module.Settings(threads=2), *hears)
    assert other.segment(volume, module.Settings(threads=2)).outcome.state == "done" and states in ([], ["done"])
    logic.shutDown()
    assert len(states) == 1 and os.listdir(temporary) == [] and not logic.running


def test_shut_down_ends_the_process_at_once(place):
    module, _, temporary = place
    slicer.mrmlScene.Clear()
    results, logic = [], module.VoxMambaLogic()
    volume = mrml_scene.add_volume(slicer.mrmlScene)
    logic.start([volume, volume], module.Settings(threads=2), lambda *_: None, lambda _, result: results.append(result.outcome.state),
                lambda _: None)
    logic.shutDown()
    assert results == ["cancelled", "cancelled"] and os.listdir(temporary) == [] and not logic.running


def test_a_program_that_cannot_be_started(place):
    module, _, temporary = place
    slicer.mrmlScene.Clear()
    program = module.programs_of(module.FOLDER).segment
    os.rename(program, program + ".away")
    try:
        with open(program, "w", encoding="utf-8") as file:
            file.write("#!/not/there\n")
        os.chmod(program, 0o755)
        result = module.VoxMambaLogic().segment(mrml_scene.add_volume(slicer.mrmlScene))
        assert result.outcome.state == "failed" and "could not be started (" in result.outcome.message
        os.remove(program)
        with pytest.raises(module.ProgramMissing):
            module.VoxMambaLogic().segment(mrml_scene.add_volume(slicer.mrmlScene))
    finally:
        os.rename(program + ".away", program)
    assert os.listdir(temporary) == []
