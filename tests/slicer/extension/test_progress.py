"""Bytes of a process to events (VoxMambaLib/Progress.py)."""
import support
from VoxMambaLib.Progress import Event, Lines, Progress

STREAM = (b"<filter-start>\n<filter-name>VoxMambaSegment</filter-name>\n<filter-comment>Starting</filter-comment>\n</filter-start>\n"
          b"<filter-progress>0.0000</filter-progress>\nhello \xc3\xa4\n<filter-comment>a &lt; b &amp; c</filter-comment>\r\n"
          b"<filter-stage-progress>0.25</filter-stage-progress>\n<filter-progress>1</filter-progress>\n"
          b"<filter-end>\n<filter-name>VoxMambaSegment</filter-name>\n<filter-time>1.5</filter-time>\n</filter-end>\n")
EVENTS = [Event("name", "VoxMambaSegment"), Event("comment", "Starting"), Event("progress", 0.0), Event("text", "hello ä"),
          Event("comment", "a < b & c"), Event("stage-progress", 0.25), Event("progress", 1.0), Event("name", "VoxMambaSegment")]


def feed(data, size):
    parser = Progress()
    events = [event for i in range(0, len(data), size) for event in parser.feed(data[i:i + size])]
    return events + parser.end()


def test_the_protocol_however_it_is_cut():
    for size in (1, 2, 7, 64, len(STREAM)):
        assert feed(STREAM, size) == EVENTS, size


def test_shares_are_clamped_and_nonsense_is_no_progress():
    lines = [b"<filter-progress>%s</filter-progress>\n" % value for value in (b"-1", b"2", b"nan", b"inf", b"x", b"")]
    assert feed(b"".join(lines), 9) == [Event("progress", 0.0), Event("progress", 1.0)]


def test_several_elements_in_a_line_and_text_between():
    assert feed(b"a<filter-progress>0.5</filter-progress>b<filter-comment>c</filter-comment>\n", 100) == [
        Event("progress", 0.5), Event("comment", "c"), Event("text", "ab")]


def test_last_line_without_an_end_and_bytes_that_are_no_text():
    assert feed(b"\xff\xfe!", 1) == [Event("text", "\ufffd\ufffd!")]


def test_a_line_that_never_ends_does_not_fill_the_memory():
    lines = Lines()
    got = [line for _ in range(100) for line in lines.feed(b"x" * 10000)] + lines.end()
    assert sum(map(len, got)) == 1000000 and max(map(len, got)) < 100000
