"""What the tests of the command line share."""
import os
import re
import subprocess
import sys

import pytest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "dicom")]
import tiny_model  # noqa: E402
from volumes import bomb, files, load, save, volume  # noqa: E402, F401

ROOT = os.path.dirname(os.path.dirname(HERE))
PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(ROOT, "build/release/cli/voxmamba"))


class Result:
    """How one run ended."""

    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def error_line(self, code):
        """The one line of a failed run: voxmamba: [file:] what is wrong."""
        assert self.code == code, (self.code, self.out, self.err)
        lines = [l for l in self.err.splitlines() if "warning: " not in l]
        lines = [l for l in lines if not l.endswith("%")]  # progress
        assert len(lines) == 1, lines
        assert lines[0].startswith("voxmamba: "), lines
        assert "/home" not in lines[0] and not lines[0].endswith("."), lines
        return lines[0]


def command(*args):
    return [PROGRAM, *[str(a) for a in args]]


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k != "VOXMAMBA_MODELS"}
    env["CUDA_VISIBLE_DEVICES"] = ""  # the CPU's masks and messages, whatever the machine has
    env.update({k: str(v) for k, v in more.items()})
    return env


def run(*args, cwd=None, env=None, timeout=300):
    done = subprocess.run(command(*args), cwd=cwd, env=env or environment(), capture_output=True, text=True,
                          timeout=timeout)
    for word in ("AddressSanitizer", "runtime error:", "LeakSanitizer"):
        assert word not in done.stderr, done.stderr
    return Result(done)


def free_memory():
    """Bytes, swap among them."""
    return 1024 * sum(int(n) for n in re.findall(r"(?:MemAvailable|SwapFree): *(\d+)", open("/proc/meminfo").read()))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model.write(str(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="session")
def model2(tmp_path_factory):
    """Two channels, three labels."""
    value = tiny_model.recipe("two", channels=("T1w", "T2w"), labels=3)
    return tiny_model.write(str(tmp_path_factory.mktemp("model2") / "two.safetensors"), value, seed=5)


@pytest.fixture
def scan(tmp_path):
    return save(tmp_path / "scan.nii.gz")


@pytest.fixture(scope="session")
def dicom_is_built(tmp_path_factory):
    """Skips what needs DICOM in a build without it."""
    pytest.importorskip("pydicom")
    import dicom_series
    folder = tmp_path_factory.mktemp("probe")
    dicom_series.write_series(folder)
    result = run("info", folder)
    if result.code != 0:
        assert "not in this build" in result.err or "DICOM" in result.err, result.err
        pytest.skip("this build does not read DICOM")
