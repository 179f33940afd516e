"""One run of the command-line module VoxMambaSegment: one volume, one process, one temporary folder."""
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import Dict, List, Tuple

from .Explain import explain
from .Progress import Event, Lines, Progress

# What a process of Slicer must not hand to a program of another: its Python, its Qt plugins, preloaded libraries.
_FOREIGN = ("LD_PRELOAD", "QT_PLUGIN_PATH", "QT_QPA_PLATFORM_PLUGIN_PATH", "SSL_CERT_FILE", "PYTHON")


@dataclass(frozen=True)
class Settings:
    """The parameters of VoxMambaSegment.xml but for its files. "" and 0 are its own "let it choose"."""

    model: str = ""
    device: str = "auto"
    tta: bool = False
    labels: Tuple[str, ...] = ()
    keep_largest: bool = False
    remove_small: float = 0.0  # mm3
    step: float = 0.5  # share of the patch
    precision: str = "auto"
    threads: int = 0
    memory: float = 0.0  # GB
    force: bool = False


@dataclass
class Files:
    """Where the files of one run are; all in its temporary folder."""

    folder: str
    input: str = field(init=False)
    segmentation: str = field(init=False)
    statistics: str = field(init=False)
    returned: str = field(init=False)

    def __post_init__(self):
        self.input = os.path.join(self.folder, "input.nrrd")
        self.segmentation = os.path.join(self.folder, "output.seg.nrrd")
        self.statistics = os.path.join(self.folder, "statistics.tsv")
        self.returned = os.path.join(self.folder, "returned.txt")


@dataclass
class Outcome:
    """How a run ended: state is "done", "failed" or "cancelled"; message is what to tell the user of a failure."""

    state: str
    message: str = ""
    returned: Dict[str, str] = field(default_factory=dict)  # resultModel, resultDevice, resultSeconds, ...


def arguments(settings, files):
    """As Slicer calls a command-line module: the return-parameter file, the flags in the order of the XML (what is empty and
    booleans that are false left out), then the indexed files."""
    flags = [("--model", settings.model), ("--device", settings.device), ("--tta", settings.tta),
             ("--labels", ",".join(settings.labels)), ("--keepLargest", settings.keep_largest),
             ("--removeSmall", settings.remove_small), ("--step", settings.step), ("--precision", settings.precision),
             ("--threads", settings.threads), ("--memory", settings.memory), ("--force", settings.force),
             ("--statistics", files.statistics)]
    words = ["--returnparameterfile", files.returned]
    for flag, value in flags:
        if isinstance(value, bool):
            words += [flag] if value else []
        elif value != "":
            words += [flag, str(value)]
    return words + [files.input, files.segmentation]


def clean_environment(environment):
    """A copy without what Slicer sets for itself. Of LD_LIBRARY_PATH the folders outside Slicer stay: the CUDA module may find
    cuDNN and cuBLASLt there."""
    home = environment.get("SLICER_HOME", "")
    kept = {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        if name in kept and home:
            folders = [each for each in kept[name].split(os.pathsep) if each and not _is_below(each, home)]
            if folders:
                kept[name] = os.pathsep.join(folders)
            else:
                del kept[name]
    return kept


class Run:
    """A process's adapter has two methods:
         start(program, arguments, environment, folder, on_stdout, on_stderr, on_end)
            on_stdout(bytes), on_stderr(bytes) as output comes; last, once, on_end(code, problem): code is the exit status, or None
            where there is none, and problem then says "not started: WHY" or "killed"
         kill()   ends it at once; on_end still comes
    VoxMambaLib/QtProcess.py is one; the tests have another."""

    def __init__(self, program, settings, process, environment, name="volume", temporary=None):
        """name: what the user calls the volume. temporary: the folder in which the run makes its own; None: the system's."""
        self._program, self._settings, self._process = program, settings, process
        self._environment, self._name, self._temporary = environment, name, temporary
        self._files = None
        self._cancelled = self._ended = False
        self._stdout, self._stderr, self._said = Progress(), Lines(), []

    def start(self, write_input, on_event, on_result, on_end):
        """write_input(path) writes the volume. Then, as the process goes on: on_event(Event) for progress, stage texts and lines;
        on_result(Files, returned) if it succeeded, while the files are there; last, always and once, on_end(Outcome), when the
        temporary folder is gone. What write_input or on_result raise becomes the outcome's message."""
        self._on_event, self._on_result, self._on_end = on_event, on_result, on_end
        try:
            self._files = Files(tempfile.mkdtemp(prefix="VoxMamba-", dir=self._temporary))
            write_input(self._files.input)
            # Slicer's own output stays empty until the program renames a whole file into its place.
            self._process.start(self._program, arguments(self._settings, self._files), self._environment, self._files.folder,
                                self._read_stdout, self._read_stderr, self._finish)
        except Exception as error:  # whatever it is: the folder goes and the user is told
            self._end(Outcome("failed", str(error) or repr(error)))

    def cancel(self):
        """Ends the process at once; the outcome comes through on_end."""
        if not self._ended:
            self._cancelled = True
            self._process.kill()

    def _read_stdout(self, data):
        for event in self._stdout.feed(data):
            self._on_event(event)

    def _read_stderr(self, data):
        self._say(self._stderr.feed(data))

    def _say(self, lines):
        for line in lines:
            if line.strip():
                self._said = [*self._said[-99:], self._named(line)]
                self._on_event(Event("text", self._said[-1]))

    def _finish(self, code, problem=""):
        if self._ended:
            return
        for event in self._stdout.end():
            self._on_event(event)
        self._say(self._stderr.end())
        if self._cancelled:
            self._end(Outcome("cancelled"))
        elif code != 0:
            self._end(Outcome("failed", explain(self._said, code, problem)))
        else:
            self._end(self._take_result())

    def _take_result(self):
        returned = _read_returned(self._files.returned)
        try:
            self._on_result(self._files, returned)
        except Exception as error:
            return Outcome("failed", f"the result could not be taken over: {self._named(str(error) or repr(error))}", returned)
        return Outcome("done", returned=returned)

    def _end(self, outcome):
        self._ended = True
        if self._files:
            shutil.rmtree(self._files.folder, ignore_errors=True)
            if os.path.exists(self._files.folder):
                self._on_event(Event("text", f"{self._files.folder} could not be removed"))
        self._on_end(outcome)

    def _named(self, line):
        """The line with the user's name for the volume in place of the temporary file's."""
        return line.replace(self._files.input, self._name).replace(self._files.folder + os.sep, "")


def _read_returned(path):
    """`name = value` lines; an empty dictionary where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs: List[Tuple[str, str, str]] = [line.rstrip("\n").partition("=") for line in file]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _is_below(folder, home):
    folder, home = os.path.abspath(folder), os.path.abspath(home)
    return folder == home or folder.startswith(home.rstrip(os.sep) + os.sep)
