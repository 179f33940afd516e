"""VoxMambaSegment.xml: what Slicer makes its panel and its calls of."""
import io
import logging
import os
import re
import shutil
import subprocess
import time

import ctk_cli
import pytest
from driver import DESCRIPTION, MODULE, SANITIZED, XML, call, drive, environment

FLAGS = ["model", "device", "tta", "labels", "keepLargest", "removeSmall", "step", "precision", "threads", "memory",
         "force", "statistics"]
RESULTS = ["resultModel", "resultDevice", "resultSeconds", "resultVolumes", "resultWarnings"]


def test_the_parser_of_ctk_takes_it(caplog):
    with caplog.at_level(logging.WARNING, logger="ctk_cli"):
        logging.getLogger("ctk_cli").setLevel(logging.WARNING)
        module = ctk_cli.CLIModule(stream=io.BytesIO(open(XML, "rb").read()))
        warnings = [r.getMessage() for r in caplog.records]
    # Slicer's own addition, and parameters that come back in a file: neither is in that parser's schema.
    assert [w for w in warnings if "'reference'" in w] == ["Element 'reference' within 'image' not parsed"]
    rest = [w for w in warnings if "'reference'" not in w]
    assert len(rest) == len(RESULTS) and all(f"Parameter {n} cannot be passed" in w for n, w in zip(RESULTS, rest)), rest
    assert module.title and module.description and module.license and module.contributor
    assert module.category == "Segmentation" and getattr(module, "documentation_url") is None
    inputs, options, outputs = module.classifyParameters()
    assert [p.name for p in inputs] == ["inputVolume", "outputSegmentation"]
    assert [p.index for p in inputs] == [0, 1]
    assert [p.channel for p in inputs] == ["input", "output"]
    assert [p.name for p in options] == FLAGS and [p.name for p in outputs] == RESULTS


def test_version_is_the_projects():
    assert DESCRIPTION.version == os.environ.get("VOXMAMBA_VERSION", DESCRIPTION.version)
    assert call("--version").out.startswith(f"VoxMambaSegment {DESCRIPTION.version}")


def test_parameters():
    parameters = list(DESCRIPTION.parameters())
    names = [p.name for p in parameters]
    flags = [f for p in parameters for f in (p.flag, p.longflag) if f]
    assert len(set(names)) == len(names) and len(set(flags)) == len(flags)
    assert all(p.label and p.description for p in parameters) and all(g.label and g.description for g in DESCRIPTION)
    assert len({p.label for p in parameters}) == len(parameters)
    for p in parameters:
        assert re.fullmatch(r"[a-z][A-Za-z]*", p.name)
        assert p.channel in (None, "input", "output")
        assert p.longflag in (None, "--" + p.name)  # one name for a thing
        if p.typ.endswith("-enumeration"):
            assert p.default in p.elements and len(set(p.elements)) == len(p.elements)
        if p.constraints:
            low, high, step = (float(getattr(p.constraints, n)) for n in ("minimum", "maximum", "step"))
            assert low <= p.default <= high and 0 < step <= high - low
    image, mask = DESCRIPTION[0]
    assert image.fileExtensions[0] == ".nii" and mask.fileExtensions[0] == ".seg.nrrd" and mask.subtype == "label"
    assert 'reference role="referenceImageGeometryRef" parameter="inputVolume"' in open(XML).read()
    assert [g.label for g in DESCRIPTION if g.advanced] == ["Computation"]


def test_the_program_prints_the_files_bytes():
    started = time.monotonic()
    done = subprocess.run([MODULE, "--xml"], capture_output=True, env=environment())
    seconds = time.monotonic() - started
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == open(XML, "rb").read() and done.stdout.startswith(b"<?xml")
    assert done.stdout == open(os.path.join(os.path.dirname(MODULE), "VoxMambaSegment.xml"), "rb").read()
    assert SANITIZED or seconds < 1
    assert "." not in os.path.basename(MODULE)  # Slicer takes no program with one


def test_the_program_has_all_the_flags():
    text = call("--help").out
    for p in DESCRIPTION.parameters():
        assert not p.longflag or f"      {p.longflag} " in text + " ", p.longflag


def test_no_cuda_is_loaded_for_the_description(tmp_path, scan, out, model):
    """A CUDA module in the place where it is looked for, which marks that it was loaded."""
    (tmp_path / "cli-modules").mkdir()
    (tmp_path / "lib/voxmamba").mkdir(parents=True)
    program = shutil.copy(MODULE, tmp_path / "cli-modules")
    mark = tmp_path / "mark"
    source = tmp_path / "fake.c"
    source.write_text('#include <stdio.h>\n__attribute__((constructor)) static void loaded(void) {'
                      f' FILE *f = fopen("{mark}", "w"); if (f) fclose(f); }}\n')
    subprocess.run([os.environ.get("VOXMAMBA_CC", "cc"), "-shared", "-fPIC", source, "-o",
                    tmp_path / "lib/voxmamba/libvoxmamba_cuda.so"], check=True)
    for flag in ("--xml", "--version", "--help"):
        assert call(flag, program=program).code == 0
    drive(scan, out / "m.seg.nrrd", model=model, program=program)
    assert not mark.exists()
    drive(scan, out / "m.seg.nrrd", model=model, device="cuda", program=program).error_line(5)
    assert mark.exists()  # or this test would test nothing


@pytest.mark.parametrize("full", ["--xml", "--help", "--version"])
def test_a_full_disk_is_said(full):
    with open("/dev/full", "w") as sink:
        done = subprocess.run([MODULE, full], stdout=sink, stderr=subprocess.PIPE, text=True, env=environment())
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1
