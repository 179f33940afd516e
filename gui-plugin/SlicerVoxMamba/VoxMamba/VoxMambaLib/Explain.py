"""A failed run in words that a user of the window can act on.

The program says what is wrong in one line, and in brackets what to do, by its options. The options become the names of the
window's controls (Resources/UI/VoxMamba.ui); all else is the program's own sentence. Only where it said nothing does the
exit status (docs/cli.md) have to speak.
"""
import re

_CONTROLS = (
    (r"use --force|tick force", 'tick "Any field of view" under Advanced'),
    (r"use --device cpu", 'set the device to "cpu"'),
    (r"use --precision fp32", 'set the precision to "fp32" under Advanced'),
    (r"--memory", "the memory limit under Advanced"),
    (r"--threads", "the number of threads under Advanced"),
    (r"--labels", "the list of segments"),
)

_BY_STATUS = {
    1: "The program does not know one of the settings: program and module are of different versions. Install the extension again",
    2: "The volume could not be read",
    3: "The model could not be read, or does not fit the volume",
    4: "The result could not be written: is the disk of the temporary folder full?",
    5: "The device, the precision or the memory that was asked for is not available",
    126: "The program may not be run: the folder of the extension forbids it",
    127: "A library of the program is missing. Install the extension again",
}

_KILLED = ("The program was ended from outside or crashed. Most often the memory was too little: close other programs, or set a "
           "memory limit under Advanced")
_OLD_SYSTEM = re.compile(r"version .GLIBC_([0-9.]+)' not found")
_PREFIX = re.compile(r"^(?:VoxMambaSegment|voxmamba): ")
_WARNING = re.compile(r"^(?:\S.*?: )?warning: ")


def explain(lines, code, problem):
    """lines: what the program said on stderr. code: its exit status, None if there is none. problem: "killed", or
    "not started: WHY"."""
    for line in reversed(lines):
        old = _OLD_SYSTEM.search(line)
        if old:
            return f"This system is too old for the program: it needs glibc {old.group(1)} (Debian 12, Ubuntu 23.04 or newer)"
    if problem.startswith("not started"):
        return f"The program could not be started ({problem[len('not started'):].lstrip(': ')}). Install the extension again"
    if code is None:
        return _KILLED
    errors = [line for line in lines if not _WARNING.match(line) and line.strip()]
    if errors:
        return in_words_of_the_window(_PREFIX.sub("", errors[-1]))
    return _BY_STATUS.get(code, f"The program ended with status {code} and did not say why")


def in_words_of_the_window(line):
    for pattern, words in _CONTROLS:
        line = re.sub(pattern, words, line)
    if "bytes" in line:
        line = re.sub(r"\b\d{7,}\b( bytes)?", lambda number: _large(int(number.group().split()[0])), line)
    return line


def _large(size):
    """Bytes as people read them; rounded up, so that a limit of that number is enough."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{-(-size * 10 // unit) / 10:.1f} {name}"
    return f"{size} bytes"
