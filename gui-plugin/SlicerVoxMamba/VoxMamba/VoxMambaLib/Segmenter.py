"""Volumes of the scene become segmentations of the scene: check, export, run, import, one volume after another."""
from dataclasses import dataclass, field
from typing import Any, List

from . import Importer, Volumes
from .Batch import Batch
from .Progress import Event
from .Runner import Run, clean_environment


@dataclass
class Result:
    """What became of one volume. The nodes are None unless outcome.state is "done"."""

    volume: Any
    name: str
    outcome: Any = None
    segmentation: Any = None
    statistics: Any = None
    notes: List[str] = field(default_factory=list)


class Segmenter:
    """scene: vtkMRMLScene. make_process(): a new adapter (Runner.Run). environment: the one that programs get once what is
    Slicer's own is taken out."""

    def __init__(self, scene, program, make_process, environment, temporary=None):
        self._scene, self._program, self._make_process = scene, program, make_process
        self._environment, self._temporary = clean_environment(environment), temporary
        self._batch = self._process = None

    @property
    def running(self):
        return self._batch is not None and self._batch.running

    def start(self, volumes, settings, on_event, on_result, on_end):
        """volumes: nodes. on_event(index, Event) as a run goes on; on_result(index, Result) after each; on_end([Result])."""
        if self.running:
            raise RuntimeError("a segmentation is running already")
        self._results = [Result(volume, volume.GetName() if volume else "") for volume in volumes]
        self._on_event, self._on_result, self._settings = on_event, on_result, settings
        self._batch = Batch(range(len(volumes)), self._start_one, self._ended_one, lambda _: on_end(self._results))
        self._batch.start()

    def cancel(self):
        if self.running:
            self._batch.cancel()

    def shut_down(self, milliseconds=5000):
        """Cancels and waits for the process, so that no folder of it stays."""
        if self.running:
            self._batch.cancel()
            if self._process is not None:
                self._process.wait(milliseconds)

    def _start_one(self, index, on_end):
        result = self._results[index]
        if result.volume is not None and not self._scene.IsNodePresent(result.volume):
            raise Volumes.VolumeRefused(f"{result.name} was removed from the scene")
        for note in Volumes.check(result.volume, self._scene):
            result.notes.append(note)
            self._on_event(index, Event("text", note))
        self._process = self._make_process()
        run = Run(self._program, self._settings, self._process, self._environment, result.name, self._temporary)
        run.start(lambda path: Volumes.export(result.volume, path, self._scene),
                  lambda event: self._on_event(index, event),
                  lambda files, returned: self._take(result, files, returned), on_end)
        return run

    def _take(self, result, files, returned):
        if not self._scene.IsNodePresent(result.volume):
            raise Volumes.VolumeRefused(f"{result.name} was removed from the scene while it was segmented")
        model = returned.get("resultModel") or self._settings.model
        name = " ".join(word for word in (result.name, model, "segmentation") if word)
        result.segmentation = Importer.import_segmentation(self._scene, files.segmentation, result.volume, self._unique(name))
        try:
            result.statistics = Importer.import_statistics(self._scene, files.statistics, self._unique(f"{name} statistics"),
                                                           result.volume)
        except Exception:
            self._scene.RemoveNode(result.segmentation)
            result.segmentation = None
            raise

    def _unique(self, name):
        return self._scene.GenerateUniqueName(name) if self._scene.GetFirstNodeByName(name) else name

    def _ended_one(self, index, outcome):
        self._process = None
        self._results[index].outcome = outcome
        self._on_result(index, self._results[index])


def summary(results):
    """One line: how many volumes became what."""
    counts = {state: sum(1 for each in results if each.outcome.state == state) for state in ("done", "failed", "cancelled")}
    words = {"done": "segmented", "failed": "failed", "cancelled": "cancelled"}
    return ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count) or "nothing to do"
