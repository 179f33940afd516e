"""The adapter of Runner.Run for a process that Qt watches: the window never waits for it."""
import qt


class QtProcess:
    def start(self, program, arguments, environment, folder, on_stdout, on_stderr, on_end):
        self._on_stdout, self._on_stderr, self._on_end = on_stdout, on_stderr, on_end
        self._end = None
        variables = qt.QProcessEnvironment()
        for name, value in environment.items():
            variables.insert(name, value)
        self._process = process = qt.QProcess()
        process.setProcessEnvironment(variables)
        process.setWorkingDirectory(folder)
        self._slots = (("readyReadStandardOutput()", self._read_stdout), ("readyReadStandardError()", self._read_stderr),
                       ("finished(int,QProcess::ExitStatus)", self._finished),
                       ("errorOccurred(QProcess::ProcessError)", self._error_occurred))
        for signal, slot in self._slots:
            process.connect(signal, slot)
        process.start(program, arguments)
        process.closeWriteChannel()  # it reads nothing from stdin

    def kill(self):
        if self._process is not None:
            self._process.kill()

    def wait(self, milliseconds):
        """For the end of Slicer only: blocks until the process is gone, and has its end told at once."""
        if self._process is not None:
            self._process.waitForFinished(milliseconds)
            self._tell()

    def _read_stdout(self):
        self._on_stdout(bytes(self._process.readAllStandardOutput().data()))

    def _read_stderr(self):
        self._on_stderr(bytes(self._process.readAllStandardError().data()))

    def _finished(self, *_):
        crashed = self._process.exitStatus() == qt.QProcess.CrashExit
        self._note_end(None if crashed else self._process.exitCode(), "killed" if crashed else "")

    def _error_occurred(self, *_):
        # Of the errors only this one is not followed by finished().
        if self._process.error() == qt.QProcess.FailedToStart:
            self._note_end(None, f"not started: {self._process.errorString()}")

    def _note_end(self, code, problem):
        """The end is told from the event loop: whoever hears of it may let go of this object, and a QProcess must not be
        deleted inside its own signal."""
        if self._end is None:
            self._end = (code, problem)
            qt.QTimer.singleShot(0, self._tell)

    def _tell(self):
        if self._process is None or self._end is None:
            return
        self._read_stdout()
        self._read_stderr()
        for signal, slot in self._slots:  # a connection keeps its slot's object alive
            self._process.disconnect(signal, slot)
        self._process = None
        self._on_end(*self._end)
