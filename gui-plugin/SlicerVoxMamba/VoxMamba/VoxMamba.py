"""The module VoxMamba of 3D Slicer: pick a volume, press a button, get named segments.

Here is what shows: the window (VoxMambaWidget) and what connects it to the scene (VoxMambaLogic). The work is in VoxMambaLib,
which knows neither Qt nor the slicer module.
"""
import os
import time
from typing import Annotated

import qt
import vtk

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from VoxMambaLib import Importer, Volumes
from VoxMambaLib.Models import ModelsUnknown, list_models
from VoxMambaLib.Program import ProgramMissing, programs_of
from VoxMambaLib.QtProcess import QtProcess
from VoxMambaLib.Runner import Settings, clean_environment
from VoxMambaLib.Segmenter import Segmenter, summary

FOLDER = os.path.dirname(os.path.abspath(__file__))
SAMPLE = "VoxMambaHippocampus"


class VoxMamba(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "VoxMamba"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["VoxMamba maintainers"]
        self.parent.helpText = _(
            "Segments a volume with a U-Net whose stages are 3D-scan Mamba blocks. The program comes with the extension: no Python "
            "package is installed, nothing is downloaded and nothing is sent anywhere. Research software: not a medical device, "
            "not for diagnosis.")
        self.parent.acknowledgementText = _(
            "The model hippocampus and the sample scan: Medical Segmentation Decathlon, Task04 Hippocampus (Simpson et al., "
            "arXiv:1902.09063), CC-BY-SA 4.0. The model head_neck: OpenKBP (Babier et al., doi:10.1002/mp.14845), MIT.")
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", loadTerminologies)


def sampleScan():
    """The sample scan that the extension brings."""
    return os.path.join(FOLDER, "Resources", "SampleData", "hippocampus_380.nii.gz")


def registerSampleData():
    """The sample scan in the module Sample Data. Its source is a file of the extension, so that it works offline."""
    import pathlib

    import SampleData

    if not os.path.isfile(sampleScan()):
        return
    if hasattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory"):  # newer versions of Slicer
        SampleData.SampleDataLogic.registerCustomSampleDataCategory("VoxMamba", title="VoxMamba")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="VoxMamba",
        sampleName=SAMPLE,
        thumbnailFileName=os.path.join(FOLDER, "Resources", "Icons", "VoxMamba.png"),
        uris=pathlib.Path(sampleScan()).as_uri(),
        fileNames="hippocampus_380.nii.gz",
        checksums="SHA256:351da8ca71ee4085e0e4eee2c71022b2f621032ca8aa90a36d13ee6d881db873",
        nodeNames="hippocampus_380",
    )


def loadTerminologies():
    """The codes of the models' labels, for the terminology selector of the Segment Editor."""
    folder = os.path.join(FOLDER, "Resources", "Terminologies")
    if os.path.isdir(folder) and hasattr(slicer.modules, "terminologies"):
        Importer.load_terminologies(slicer.modules.terminologies.logic(), folder)


@parameterNodeWrapper
class VoxMambaParameterNode:
    """What the user chose; saved with the scene.

    model - name of the model; "" is the only one that fits the volume
    labels - names of the segments that are wanted, separated by commas; "" is all
    The others are the parameters of the command-line module (docs/slicer.md).
    """

    inputVolume: vtkMRMLScalarVolumeNode
    model: str = ""
    labels: str = ""
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    tta: bool = False
    precision: Annotated[str, Choice(["auto", "fp32", "fp16", "bf16"])] = "auto"
    step: Annotated[float, WithinRange(0.1, 1.0)] = 0.5
    keepLargest: bool = False
    removeSmall: Annotated[float, WithinRange(0.0, 1000000.0)] = 0.0
    threads: Annotated[int, WithinRange(0, 1024)] = 0
    memory: Annotated[float, WithinRange(0.0, 100000.0)] = 0.0
    force: bool = False


class VoxMambaWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._models = []
        self._many = False  # the run at hand is of many volumes
        self._filling = False  # the code, not the user, changes the lists

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/VoxMamba.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = VoxMambaLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChanged)
        self.ui.labelsList.connect("itemChanged(QListWidgetItem*)", self.onLabelsChanged)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.applyManyButton.connect("clicked(bool)", self.onApplyManyButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        self.ui.volumesSelector.connect("checkedNodesChanged()", self.updateButtons)

        self.ui.outcomesTable.setColumnCount(3)
        self.ui.outcomesTable.setHorizontalHeaderLabels([_("Volume"), _("Outcome"), _("What happened")])
        self.ui.outcomesTable.horizontalHeader().setStretchLastSection(True)
        self.ui.progressBar.setRange(0, 1000)
        self.fillModels()
        self.initializeParameterNode()

    def cleanup(self):
        """Slicer closes, or the module is reloaded: no process and no temporary folder stay."""
        if self.logic is not None:
            self.logic.shutDown()
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)

    def onSceneStartClose(self, caller, event):
        self.logic.cancel()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    # ---- Models and their labels -------------------------------------------------------------------

    def fillModels(self):
        self._filling = True
        self.ui.modelSelector.clear()
        try:
            self._models = self.logic.models()
            self.ui.modelSelector.addItem(_("Automatic"))
            for model in self._models:
                self.ui.modelSelector.addItem(f"{model.name} {model.version}")
        except (ProgramMissing, ModelsUnknown) as error:
            self._models = []
            self.showError(str(error))
        self._filling = False

    def currentModel(self):
        """None where the program is to take the one that fits."""
        index = self.ui.modelSelector.currentIndex - 1
        return self._models[index] if 0 <= index < len(self._models) else None

    def onModelChanged(self, index):
        if self._filling or not self._parameterNode:
            return
        model = self.currentModel()
        name = model.name if model else ""
        if self._parameterNode.model != name:
            self._parameterNode.labels = ""
            self._parameterNode.model = name

    def onParametersChanged(self, caller=None, event=None):
        """The parameter node is the truth; lists that Slicer does not connect by itself are set from it."""
        if not self._parameterNode:
            return
        names = ["", *(model.name for model in self._models)]
        if self._models and self._parameterNode.model not in names:  # a scene from elsewhere
            self.showError(_("The model {name} is not installed here").format(name=self._parameterNode.model))
            self._parameterNode.labels = ""
            self._parameterNode.model = ""
        self._filling = True
        if self._models:
            self.ui.modelSelector.setCurrentIndex(names.index(self._parameterNode.model))
        self.showModel(self.currentModel())
        self._filling = False
        self.updateButtons()

    def showModel(self, model):
        if model is None:
            self.ui.modelInfoLabel.setText(_("The model that fits the volume, with all its segments") if self._models else "")
            self.ui.labelsList.clear()
            return
        self.ui.modelInfoLabel.setText(modelText(model))
        wanted = chosenLabels(self._parameterNode.labels)
        if [self.ui.labelsList.item(i).text() for i in range(self.ui.labelsList.count)] != [label.name for label in model.labels]:
            self.ui.labelsList.clear()
            for label in model.labels:
                item = qt.QListWidgetItem(label.name)
                if label.rgb:
                    item.setData(qt.Qt.DecorationRole, qt.QColor(*label.rgb))
                item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
                item.setCheckState(qt.Qt.Checked)
                self.ui.labelsList.addItem(item)
        for i in range(self.ui.labelsList.count):
            item = self.ui.labelsList.item(i)
            item.setCheckState(qt.Qt.Checked if not wanted or item.text() in wanted else qt.Qt.Unchecked)

    def onLabelsChanged(self, item):
        if self._filling or not self._parameterNode:
            return
        items = [self.ui.labelsList.item(i) for i in range(self.ui.labelsList.count)]
        names = [each.text() for each in items if each.checkState() == qt.Qt.Checked]
        if not names:
            self.showError(_("Without a segment there is nothing to do: all are taken"))
        self._parameterNode.labels = "" if len(names) == len(items) else ",".join(names)
        self.onParametersChanged()

    def updateButtons(self):
        model = self.currentModel()
        reason = "" if self._models else _("No model is installed")
        if model:
            reason = model.refusal()
        if not reason and self.logic.running:
            reason = _("A segmentation is running")
        self.ui.cancelButton.enabled = self.logic.running
        one = reason or ("" if self._parameterNode and self._parameterNode.inputVolume else _("Choose a volume"))
        many = reason or ("" if self.ui.volumesSelector.checkedNodes() else _("Tick the volumes to segment"))
        for button, why, else_ in ((self.ui.applyButton, one, _("Segment the volume")),
                                   (self.ui.applyManyButton, many, _("Segment the ticked volumes, one after another"))):
            button.enabled = not why
            button.toolTip = why or else_

    # ---- Runs ------------------------------------------------------------------------------------

    def onApplyButton(self):
        self.run([self._parameterNode.inputVolume], many=False)

    def onApplyManyButton(self):
        self.run(list(self.ui.volumesSelector.checkedNodes()), many=True)

    def onCancelButton(self):
        self.ui.stageLabel.setText(_("Cancelling"))
        self.logic.cancel()

    def run(self, volumes, many):
        self._many, self._count = many, len(volumes)
        self.showError("")
        self.ui.logText.clear()
        self.ui.progressBar.setValue(0)
        if many:
            self.ui.outcomesTable.setRowCount(0)
        settings = self.logic.settings(self._parameterNode, self.currentModel())
        try:
            self.logic.start(volumes, settings, self.onEvent, self.onResult, self.onEnd)
        except ProgramMissing as error:
            self.showError(str(error))
        self.updateButtons()

    def onEvent(self, index, event):
        if event.kind == "progress":
            self.ui.progressBar.setValue(int(1000 * (index + event.value) / self._count))
        elif event.kind == "comment":
            self.ui.stageLabel.setText(event.value if self._count == 1 else f"{index + 1}/{self._count}: {event.value}")
            self.ui.logText.appendPlainText(event.value)
        elif event.kind == "text":
            self.ui.logText.appendPlainText(event.value)

    def onResult(self, index, result):
        state, message = result.outcome.state, result.outcome.message
        returned = result.outcome.returned
        said = message or "; ".join(filter(None, [returned.get("resultVolumes"), returned.get("resultDevice"), *warnings(result)]))
        self.ui.logText.appendPlainText(": ".join(filter(None, [result.name, state, said])))
        if self._many:
            row = self.ui.outcomesTable.rowCount
            self.ui.outcomesTable.setRowCount(row + 1)
            for column, text in enumerate((result.name, state, said)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                self.ui.outcomesTable.setItem(row, column, item)
        elif state == "failed":
            self.showError(message)
        if result.segmentation:
            self.ui.show3DButton.setSegmentationNode(result.segmentation)
            self.ui.statisticsView.setMRMLTableNode(result.statistics)

    def onEnd(self, results):
        done = all(result.outcome.state == "done" for result in results)
        self.ui.progressBar.setValue(1000 if done else 0)
        notes = [] if self._many else warnings(results[0])
        self.ui.stageLabel.setText("\n".join([summary(results), *notes]))
        if self._many and any(result.outcome.state == "failed" for result in results):
            self.showError(_("Some volumes failed: the table of volumes says why"))
        self.updateButtons()

    def showError(self, text):
        self.ui.errorLabel.setText(text)
        self.ui.errorLabel.setVisible(bool(text))


class VoxMambaLogic(ScriptedLoadableModuleLogic):
    """From a script:

        logic = VoxMambaLogic()
        result = logic.segment(volumeNode)       # waits; the window goes on working
        result.segmentation, result.statistics   # nodes; result.outcome.message says what went wrong
    """

    def __init__(self, makeProcess=QtProcess):
        ScriptedLoadableModuleLogic.__init__(self)
        self._makeProcess = makeProcess
        self._segmenter = None

    def getParameterNode(self):
        return VoxMambaParameterNode(super().getParameterNode())

    @staticmethod
    def environment():
        """What programs get: the environment from before Slicer's launcher, without what else is Slicer's own."""
        return clean_environment(slicer.util.startupEnvironment())

    def models(self):
        return list_models(programs_of(FOLDER).voxmamba, self.environment())

    @staticmethod
    def settings(parameters, model):
        """model: None for the one that fits."""
        return Settings(model=model.name if model else "", device=parameters.device, tta=parameters.tta, labels=chosenLabels(parameters.labels),
                        keep_largest=parameters.keepLargest, remove_small=parameters.removeSmall, step=parameters.step,
                        precision=parameters.precision, threads=parameters.threads, memory=parameters.memory,
                        force=parameters.force)

    @property
    def running(self):
        return self._segmenter is not None and self._segmenter.running

    def start(self, volumes, settings, onEvent, onResult, onEnd):
        """As Segmenter.start: returns at once. ProgramMissing where the extension has no program. RuntimeError while another start of
        this logic runs, which cancel() could not reach any more; another logic may run beside it."""
        if self.running:
            raise RuntimeError("a segmentation is running already")
        self._segmenter = Segmenter(slicer.mrmlScene, programs_of(FOLDER).segment, self._makeProcess, self.environment(),
                                    slicer.app.temporaryPath)
        self._segmenter.start(volumes, settings, onEvent, onResult, onEnd)

    def cancel(self):
        if self._segmenter is not None:
            self._segmenter.cancel()

    def shutDown(self):
        if self._segmenter is not None:
            self._segmenter.shut_down()

    def segment(self, volume, settings=None):
        """Segments one volume and waits for it; gives a Segmenter.Result."""
        results = []
        self.start([volume], settings or Settings(), lambda index, event: None, lambda index, result: results.append(result),
                   lambda all_: None)
        while self.running:
            slicer.app.processEvents()
            time.sleep(0.01)
        return results[0]


def warnings(result):
    """What the user should look at: said of the volume before the run, and by the program."""
    return [*result.notes, *filter(None, [result.outcome.returned.get("resultWarnings")])]


def chosenLabels(text):
    return tuple(name for name in text.split(",") if name)


def modelText(model):
    """What a user should know before choosing a model."""
    refusal = model.refusal()
    lines = [model.description, _("Expects: {modality}, {channels}").format(modality=model.modality, channels=", ".join(model.channels)),
             _("Licence: {licence}").format(licence=model.licence)]
    return "\n".join(filter(None, [*lines, refusal]))


class VoxMambaTest(ScriptedLoadableModuleTest):
    """The sample scan through the whole module: in Slicer, by Reload and Test or ctest."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        for test in (self.test_SampleScan, self.test_Refused, self.test_Cancel):
            self.setUp()
            test()

    def load(self):
        import SampleData

        registerSampleData()
        return SampleData.downloadSample(SAMPLE)

    def test_SampleScan(self):
        volume = self.load()
        result = VoxMambaLogic().segment(volume)
        self.assertEqual(result.outcome.state, "done", result.outcome.message)
        segmentation = result.segmentation.GetSegmentation()
        names = [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]
        self.assertEqual(names, ["anterior", "posterior"])
        self.assertEqual(result.statistics.GetNumberOfRows(), 2)
        self.delayDisplay("The sample scan is segmented")

    def test_Refused(self):
        result = VoxMambaLogic().segment(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
        self.assertEqual(result.outcome.state, "failed")
        self.assertIn("holds no image", result.outcome.message)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_Cancel(self):
        volume, logic, results = self.load(), VoxMambaLogic(), []
        logic.start([volume, volume], Settings(), lambda *_: None, lambda _, result: results.append(result.outcome.state), lambda _: None)
        logic.cancel()
        while logic.running:
            slicer.app.processEvents()
        self.assertEqual(results, ["cancelled", "cancelled"])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
