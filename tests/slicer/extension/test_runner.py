"""One run with a program that does what a test asks of it (VoxMambaLib/Runner.py, Explain.py). test_program.py has the real one."""
import os
import stat
import sys

import pytest
import support
from VoxMambaLib.Runner import Files, Run, Settings, arguments, clean_environment

# Takes down what it got, says FAKE_OUT and FAKE_ERR, writes its files unless FAKE_FILES is "no", and ends as FAKE_END says.
FAKE = f"""#!{sys.executable}
import json, os, signal, sys, time
folder = os.path.dirname(sys.argv[-1])
with open(os.environ["FAKE_LOG"], "w") as file:
    json.dump({{"words": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(), "input": open(sys.argv[-2]).read()}}, file)
if os.environ.get("FAKE_FILES") != "no":
    open(sys.argv[-1], "w").write("segmentation")
    open(sys.argv[2], "w").write("resultModel = a model = b\\nresultSeconds = 1.5\\nno pair\\n")
sys.stdout.write(os.environ.get("FAKE_OUT", ""))
sys.stdout.flush()
sys.stderr.write(os.environ.get("FAKE_ERR", "").replace("INPUT", sys.argv[-2]).replace("OUTPUT", sys.argv[-1]))
sys.stderr.flush()
end = os.environ.get("FAKE_END", "0")
if end == "hang":
    time.sleep(600)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(end))
"""


@pytest.fixture
def place(tmp_path):
    """A folder for temporary files, and a fake program; both with blanks and letters beyond ASCII in their names."""
    folder = tmp_path / "a folder ü 影"
    folder.mkdir()
    program = folder / "fake program é"
    program.write_text(FAKE)
    program.chmod(0o755)
    temporary = folder / "tmp ø"
    temporary.mkdir()
    return program, temporary


def run(place, write_input=None, on_result=None, during=None, name="my volume", settings=Settings(), **fake):
    """Runs to the end; during(run, process) is called once the program has spoken. Gives (outcome, heard, process)."""
    program, temporary = place
    heard, process = support.Heard(), support.Process()
    env = support.environment(FAKE_LOG=str(temporary.parent / "log.json"), **{f"FAKE_{k.upper()}": v for k, v in fake.items()})
    one = Run(str(program), settings, process, env, name, str(temporary))
    one.start(write_input or (lambda path: open(path, "w").write("volume")), heard.event, on_result or heard.result, heard.end)
    while not heard.outcomes:
        process.pump()
        if during and heard.events:
            during(one, process)
            during = None
    assert os.listdir(temporary) == []  # whatever happened
    assert len(heard.outcomes) == 1
    return heard.outcomes[0], heard, process


def log(place):
    import json
    return json.loads((place[1].parent / "log.json").read_text())


def test_what_the_program_gets(place):
    seen = []
    outcome, heard, process = run(place, on_result=lambda files, returned: seen.append((open(files.segmentation).read(), returned)),
                                  out="<filter-comment>Segmenting</filter-comment>\n<filter-progress>0.5</filter-progress>\nsaid\n")
    assert (outcome.state, outcome.message) == ("done", "")
    assert seen == [("segmentation", {"resultModel": "a model = b", "resultSeconds": "1.5"})] and outcome.returned == seen[0][1]
    got = log(place)
    assert got["input"] == "volume" and got["folder"] == process.folder == os.path.dirname(got["words"][-1])
    assert heard.values("comment") == ["Segmenting"] and heard.values("progress") == [0.5] and heard.values("text") == ["said"]


def test_arguments_stand_in_the_order_of_the_description():
    settings = Settings(model="m", device="cuda", tta=True, labels=("a", "b c"), keep_largest=True, remove_small=2.5, step=0.25,
                        precision="fp16", threads=3, memory=1.5, force=True)
    words = arguments(settings, Files("/t"))
    flags = [("boolean" if kind == "boolean" else "value", f"--{texts['longflag']}") for kind, texts, _, _ in support.parameters()
             if texts.get("longflag")]
    want = ["--returnparameterfile", "/t/returned.txt"]
    values = iter(["m", "cuda", "a,b c", "2.5", "0.25", "fp16", "3", "1.5", "/t/statistics.tsv"])
    for kind, flag in flags:
        want += [flag] if kind == "boolean" else [flag, next(values)]
    assert words == want + ["/t/input.nrrd", "/t/output.seg.nrrd"]


def test_defaults_are_those_of_the_description():
    """What is empty and false is left out; what is given has the description's default as its value."""
    words = arguments(Settings(), Files("/t"))
    defaults = {f"--{texts['longflag']}": texts["default"] for kind, texts, _, _ in support.parameters()
                if texts.get("longflag") and texts.get("default") and kind != "boolean"}
    given = {words[i]: words[i + 1] for i in range(2, len(words) - 2, 2)}
    given.pop("--statistics")
    assert set(given) == set(defaults)
    for flag, value in given.items():
        assert value == defaults[flag] or float(value) == float(defaults[flag]), flag


def test_nothing_of_slicers_own_gets_to_the_program():
    home = "/opt/Slicer-5.8.1"
    dirty = {"HOME": "/home/x", "PATH": "/usr/bin", "SLICER_HOME": home, "PYTHONHOME": home + "/lib/Python", "PYTHONPATH": "x",
             "PYTHONNOUSERSITE": "1", "LD_PRELOAD": "liba.so", "QT_PLUGIN_PATH": home, "SSL_CERT_FILE": home + "/c.crt",
             "LD_LIBRARY_PATH": f"{home}/bin:{home}/lib/Slicer-5.8:/opt/Slicer-5.8.1-cudnn:/usr/lib/cuda:", "VOXMAMBA_MODELS": "/m",
             "LC_ALL": "de_DE.UTF-8"}
    before = dict(dirty)
    assert clean_environment(dirty) == {
        "HOME": "/home/x", "PATH": "/usr/bin", "SLICER_HOME": home, "LD_LIBRARY_PATH": "/opt/Slicer-5.8.1-cudnn:/usr/lib/cuda",
        "VOXMAMBA_MODELS": "/m", "LC_ALL": "de_DE.UTF-8"}
    assert dirty == before
    assert "LD_LIBRARY_PATH" not in clean_environment({"SLICER_HOME": home, "LD_LIBRARY_PATH": home + "/bin"})
    assert clean_environment({"LD_LIBRARY_PATH": "/a"}) == {"LD_LIBRARY_PATH": "/a"}


def test_cancel_kills_and_leaves_nothing(place):
    outcome, heard, process = run(place, out="<filter-progress>0.1</filter-progress>\n", end="hang",
                                  during=lambda one, process: (one.cancel(), one.cancel()))
    assert outcome.state == "cancelled" and not heard.results
    assert process.child.returncode == -9


def test_a_result_that_comes_after_the_cancel_is_not_taken(place):
    """The process ended well before the kill got to it."""
    def cancel_late(one, process):
        process.child.wait()
        one.cancel()
    outcome, heard, _ = run(place, out="<filter-progress>1</filter-progress>\n", during=cancel_late)
    assert outcome.state == "cancelled" and not heard.results


@pytest.mark.parametrize("fake, want", [
    ({"err": "VoxMambaSegment: INPUT: warning: the grid is sheared\nVoxMambaSegment: INPUT: a constant image\n", "end": "2"},
     "my volume: a constant image"),
    ({"err": "VoxMambaSegment: INPUT: 99 x 99 x 99 mm (crop it, take another model, or use --force)\n", "end": "3"},
     'my volume: 99 x 99 x 99 mm (crop it, take another model, or tick "Any field of view" under Advanced)'),
    ({"err": "VoxMambaSegment: the CUDA module is not installed (use --device cpu)", "end": "5"},
     'the CUDA module is not installed (set the device to "cpu")'),
    ({"err": "VoxMambaSegment: OUTPUT: No space left on device\n", "end": "4"}, "output.seg.nrrd: No space left on device"),
    ({"err": "VoxMambaSegment: error\n\nVoxMambaSegment: warning: said after it\n", "end": "5"}, "error"),
    ({"err": "VoxMambaSegment: the case needs 12345678901 bytes, 4000000000 are allowed, 3 tiles\n", "end": "5"},
     "the case needs 12.4 GB, 4.0 GB are allowed, 3 tiles"),
    ({"end": "4"}, "The result could not be written: is the disk of the temporary folder full?"),
    ({"end": "77"}, "The program ended with status 77 and did not say why"),
    ({"err": "x: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.36' not found (required by x)\n", "end": "1"},
     "This system is too old for the program: it needs glibc 2.36 (Debian 12, Ubuntu 23.04 or newer)"),
])
def test_errors_in_words_of_the_window(place, fake, want):
    outcome, heard, _ = run(place, **fake)
    assert (outcome.state, outcome.message) == ("failed", want) and not heard.results


def test_a_program_that_is_killed(place):
    outcome, heard, _ = run(place, end="killed", err="VoxMambaSegment: INPUT: warning: odd\n")
    assert outcome.state == "failed" and "memory" in outcome.message
    assert heard.values("text") == ["VoxMambaSegment: my volume: warning: odd"]


def test_a_program_that_cannot_be_started(place):
    place[0].chmod(stat.S_IRUSR)
    outcome, _, _ = run((place[0].with_name("missing"), place[1]))
    assert outcome.state == "failed" and "could not be started" in outcome.message and "Install" in outcome.message


def test_a_volume_that_cannot_be_written(place):
    def refuse(path):
        open(path, "w").write("half")
        raise OSError("the disk is full")
    outcome, heard, _ = run(place, write_input=refuse)
    assert (outcome.state, outcome.message) == ("failed", "the disk is full") and not heard.events


def test_a_result_that_cannot_be_taken_over(place):
    def refuse(files, returned):
        raise RuntimeError(f"{files.segmentation}: cannot be read")
    outcome, _, _ = run(place, on_result=refuse)
    assert (outcome.state, outcome.message) == ("failed", "the result could not be taken over: output.seg.nrrd: cannot be read")


def test_no_temporary_folder_can_be_made(place):
    heard = support.Heard()
    Run(str(place[0]), Settings(), support.Process(), {}, "v", str(place[1] / "not there")).start(
        lambda path: None, heard.event, heard.result, heard.end)
    assert heard.outcomes[0].state == "failed" and "not there" in heard.outcomes[0].message
