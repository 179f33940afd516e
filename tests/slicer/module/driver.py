"""Calls VoxMambaSegment as 3D Slicer's vtkSlicerCLIModuleLogic calls a command-line module, and reads what it prints."""
import logging
import os
import re
import subprocess

import ctk_cli

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
MODULE = os.environ.get("VOXMAMBA_SLICER_MODULE", os.path.join(ROOT, "build/release/cli-modules/VoxMambaSegment"))
XML = os.path.join(ROOT, "gui-plugin/SlicerVoxMamba/VoxMambaSegment/VoxMambaSegment.xml")
SANITIZED = os.environ.get("VOXMAMBA_SANITIZE") == "ON"

logging.getLogger("ctk_cli").setLevel(logging.ERROR)  # test_description.py looks at its warnings
DESCRIPTION = ctk_cli.CLIModule(XML)


def arguments(values, returns=None):
    """The argument list for values by parameter name; defaults are the description's, as in Slicer's panel."""
    given = dict(values)
    inputs, options, _ = DESCRIPTION.classifyParameters()
    out = ["--returnparameterfile", str(returns)] if returns else []
    for p in DESCRIPTION.parameters():  # in the description's order
        if p not in options:
            continue
        value = given.pop(p.name, p.default)
        if p.typ == "boolean":
            out += [p.longflag] * bool(value)
        elif p.typ in ("string", "table"):
            out += [p.longflag, str(value)] if value else []
        else:
            out += [p.longflag, str(value)]
    out += [str(given.pop(p.name)) for p in inputs]
    assert not given, given
    return out


def environment(**more):
    """Slicer's own libraries and Python are in the child's environment; models come from the tests."""
    env = {k: v for k, v in os.environ.items() if k != "VOXMAMBA_MODELS"}
    env["CUDA_VISIBLE_DEVICES"] = ""
    env.update({k: str(v) for k, v in more.items()})
    return env


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        for word in ("AddressSanitizer", "runtime error:", "LeakSanitizer"):
            assert word not in err, err

    @property
    def progress(self):
        return [float(x) for x in re.findall(r"<filter-progress>(.*?)</filter-progress>", self.out)]

    @property
    def stages(self):
        return re.findall(r"<filter-comment>(.*?)</filter-comment>", self.out)

    def check_protocol(self):
        """One start, one end, whole tags on lines of their own, progress that never falls."""
        assert self.out.endswith("</filter-end>\n")
        for tag in ("filter-start", "filter-end"):
            assert self.out.count(f"<{tag}>") == self.out.count(f"</{tag}>") == 1
        value = r"<(filter-(?:name|comment|progress|stage-progress|time))>[^<>]*</\1>"
        block = r"</?filter-(?:start|end)>"
        for line in self.out.splitlines():
            assert re.fullmatch(f"{value}|{block}", line), line
        p = self.progress
        assert p == sorted(p) and 0 <= p[0] and p[-1] <= 1, p
        assert (p[-1] == 1) == (self.code == 0), (p, self.code)
        assert len([x for x in p if x == 1]) <= 1
        return self

    def error_line(self, code):
        """The one line of a failed run: VoxMambaSegment: [file:] what is wrong."""
        assert self.code == code, (self.code, self.out, self.err)
        lines = [l for l in self.err.splitlines() if "warning: " not in l]
        assert len(lines) == 1 and lines[0].startswith("VoxMambaSegment: "), self.err
        assert not lines[0].endswith("."), lines
        return lines[0]


def call(*args, cwd=None, env=None, program=MODULE, timeout=300, **more):
    """Runs the program with just these arguments."""
    done = subprocess.run([str(program), *map(str, args)], cwd=cwd, env=env or environment(), capture_output=True,
                          text=True, timeout=timeout, **more)
    return Result(done.returncode, done.stdout, done.stderr)


def drive(scan, output, returns=None, cwd=None, env=None, program=MODULE, **values):
    """One run as from Slicer's panel; on the CPU unless told otherwise."""
    values = {"device": "cpu", "inputVolume": scan, "outputSegmentation": output, **values}
    return call(*arguments(values, returns), cwd=cwd, env=env, program=program)


def returned(path):
    """Slicer's reading of a return-parameter file: a line a parameter, the value trimmed."""
    pairs = [line.split("=", 1) for line in open(path, encoding="utf-8").read().splitlines()]
    return {name.strip(): value.strip() for name, value in pairs}
