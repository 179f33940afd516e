"""What VoxMamba.py asks of Slicer's Python, as far as it can be stood in for: slicer-core's MRML nodes are real, base classes, Qt's
processes and (window_stand_ins.py) widgets are these. It shows that the module's own code runs, not that Slicer's side is as assumed here."""
import os
import selectors
import subprocess
import sys
import types

import window_stand_ins as window

QT = types.SimpleNamespace(pending=[], processes=[])


class QProcessEnvironment:
    def __init__(self):
        self.values = {}

    def insert(self, name, value):
        self.values[name] = value


class _Bytes:
    def __init__(self, value):
        self._value = value

    def data(self):
        return self._value


class QProcess:
    NormalExit, CrashExit = 0, 1

    def __init__(self):
        self._slots, self._buffers, self._child, self._error = {}, {1: b"", 2: b""}, None, ""
        self._emitting = self._ended = False
        QT.processes.append(self)

    def connect(self, signal, slot):
        self._slots.setdefault(signal, []).append(slot)

    def disconnect(self, signal, slot):
        assert not self._emitting  # nobody may let go of a process inside its own signal
        self._slots[signal].remove(slot)

    def connections(self):
        return sum(map(len, self._slots.values()))

    def _emit(self, signal, *values):
        self._emitting = True
        for slot in list(self._slots.get(signal, ())):
            slot(*values)
        self._emitting = False

    def setProcessEnvironment(self, environment):
        self._environment = environment.values

    def setWorkingDirectory(self, folder):
        self._folder = folder

    def start(self, program, arguments):
        try:
            self._child = subprocess.Popen([program, *arguments], env=self._environment, cwd=self._folder, stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            self._error = error.strerror
            return
        self._selector = selectors.DefaultSelector()
        for number, stream in ((1, self._child.stdout), (2, self._child.stderr)):
            self._selector.register(stream, selectors.EVENT_READ, number)

    def closeWriteChannel(self):
        self._child.stdin.close()

    def waitForStarted(self, milliseconds):
        return self._child is not None

    def kill(self):
        if self._child is not None:
            self._child.kill()

    def work(self, wait):
        """One step of the event loop; True while there is more."""
        if self._child is None or self._ended:
            return False
        if self._selector.get_map():
            for key, _ in self._selector.select(timeout=1 if wait else 0):
                data = os.read(key.fileobj.fileno(), 4096)
                self._buffers[key.data] += data
                if not data:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
                else:
                    self._emit("readyReadStandardOutput()" if key.data == 1 else "readyReadStandardError()")
            return True
        self._child.wait()
        self._ended = True  # not by returncode: a kill sets it where the child has ended by itself
        self._emit("finished(int,QProcess::ExitStatus)", self.exitCode(), self.exitStatus())
        return False

    def waitForFinished(self, milliseconds):
        while self.work(wait=True):
            pass

    def readAllStandardOutput(self):
        return self._take(1)

    def readAllStandardError(self):
        return self._take(2)

    def _take(self, number):
        data, self._buffers[number] = self._buffers[number], b""
        return _Bytes(data)

    def exitCode(self):
        return self._child.returncode

    def exitStatus(self):
        return QProcess.CrashExit if self._child.returncode < 0 else QProcess.NormalExit

    def errorString(self):
        return self._error


def process_events():
    pending, QT.pending = QT.pending, []
    for call in pending:
        call()
    for process in list(QT.processes):
        process.work(wait=not pending)


class _Base:
    def __init__(self, parent=None):
        self.parent = parent if parent is not None else types.SimpleNamespace(isEntered=True)


class _Logic(_Base):
    def getParameterNode(self):
        return None


class _Widget(_Base):
    def setup(self):
        self.layout = types.SimpleNamespace(addWidget=lambda widget: None)

    def resourcePath(self, name):
        return os.path.join(os.path.dirname(sys.modules[type(self).__module__].__file__), "Resources", name)


class _Test(_Base):
    def delayDisplay(self, text):
        pass


def install(slicer, scene, load_sample, temporary, environment):
    """Puts the stand-ins where VoxMamba.py finds them. load_sample(path) gives a volume node."""
    import unittest
    registered = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**words):
            registered.append(words)

    def module(name, **members):
        sys.modules[name] = made = types.ModuleType(name)
        vars(made).update(members)
        return made

    module("qt", QProcess=QProcess, QProcessEnvironment=QProcessEnvironment, QListWidgetItem=window.ListItem,
           QTableWidgetItem=window.ListItem, QColor=lambda *rgb: rgb,
           Qt=types.SimpleNamespace(Checked=window.CHECKED, Unchecked=window.UNCHECKED, ItemIsEnabled=32, ItemIsUserCheckable=16,
                                    DecorationRole=1),
           QTimer=types.SimpleNamespace(singleShot=lambda milliseconds, call: QT.pending.append(call)))
    module("SampleData", SampleDataLogic=SampleDataLogic, downloadSample=lambda name: load_sample(registered[-1]["uris"]))
    slicer.i18n = module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    slicer.util = module("slicer.util", VTKObservationMixin=window.Observations, startupEnvironment=lambda: environment,
                         loadUI=window.load_ui, childWidgetVariables=lambda widget: widget.ui)
    slicer.parameterNodeWrapper = module("slicer.parameterNodeWrapper", Choice=list, WithinRange=lambda low, high: (low, high),
                                         parameterNodeWrapper=window.parameter_node_wrapper)
    slicer.ScriptedLoadableModule = module(
        "slicer.ScriptedLoadableModule", ScriptedLoadableModule=_Base,
        ScriptedLoadableModuleLogic=_Logic,
        ScriptedLoadableModuleTest=type("ScriptedLoadableModuleTest", (_Test, unittest.TestCase), {"__init__": unittest.TestCase.__init__}),
        ScriptedLoadableModuleWidget=_Widget)
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace()
    connected = {}
    slicer.app = types.SimpleNamespace(processEvents=process_events, temporaryPath=temporary,
                                       connect=lambda signal, slot: connected.setdefault(signal, []).append(slot))
    return registered, connected
