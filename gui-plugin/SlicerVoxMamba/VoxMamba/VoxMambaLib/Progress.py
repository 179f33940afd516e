"""What the command-line module says while it works, bytes in, events out.

On stdout it follows Slicer's protocol, one element a line: <filter-start> with <filter-name> and <filter-comment> in it,
then <filter-progress> and <filter-stage-progress> (0 to 1), <filter-comment> where a stage begins, <filter-end>.
What is no element of it is text.
"""
import math
import re
from html import unescape
from typing import NamedTuple, Union

_ELEMENT = re.compile(r"<filter-(name|comment|progress|stage-progress)>(.*?)</filter-\1>")
_MARK = re.compile(r"</?filter-(?:start|end)\s*/?>|<filter-time>.*?</filter-time>")
_LONGEST_LINE = 1 << 16


class Event(NamedTuple):
    """kind: "name" or "comment" (str), "progress" or "stage-progress" (float, 0 to 1), "text" (str)."""

    kind: str
    value: Union[str, float]


class Lines:
    """Cuts a stream of bytes into lines of text. A line that never ends is cut, so that memory stays bounded."""

    def __init__(self):
        self._rest = b""

    def feed(self, data):
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in whole]

    def end(self):
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace").rstrip("\r")] if rest else []


def events_of(line):
    """The events of one line of stdout."""
    events = []
    for kind, value in _ELEMENT.findall(line):
        if kind in ("name", "comment"):
            events.append(Event(kind, unescape(value)))
        else:
            share = _share(value)
            if share is not None:
                events.append(Event(kind, share))
    text = _ELEMENT.sub("", _MARK.sub("", line)).strip()
    if text:
        events.append(Event("text", text))
    return events


class Progress:
    """feed(bytes) -> events, in order; end() -> those of a last line without an end."""

    def __init__(self):
        self._lines = Lines()

    def feed(self, data):
        return [event for line in self._lines.feed(data) for event in events_of(line)]

    def end(self):
        return [event for line in self._lines.end() for event in events_of(line)]


def _share(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else None
