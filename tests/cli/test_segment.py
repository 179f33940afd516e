"""One case: the mask, what lies beside it, and every option that changes it."""
import hashlib
import json
import os
import subprocess

import jsonschema
import nibabel
import numpy as np
import pytest
import scipy.ndimage
from conftest import PROGRAM, ROOT, command, environment, files, load, run, save, volume

import tiny_model


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def segment(scan, model, out, *args, code=0):
    result = run("segment", scan, "-m", model, "-o", out, *args)
    assert result.code == code, result.err
    return result


@pytest.fixture(scope="module")
def plain(tmp_path_factory, model):
    """A mask without any option, and its scan."""
    folder = tmp_path_factory.mktemp("plain")
    scan = save(folder / "scan.nii.gz")
    segment(scan, model, folder / "mask.nii.gz")
    return scan, folder / "mask.nii.gz"


def test_mask_lies_on_the_scan(plain):
    scan, mask = plain
    data, affine = load(mask)
    image, expected = load(scan)
    assert data.shape == image.shape and data.dtype == np.uint8
    assert np.array_equal(affine, expected)
    header, source = nibabel.load(mask).header, nibabel.load(scan).header
    assert header["qform_code"] == source["qform_code"] and header["sform_code"] == source["sform_code"]
    assert set(np.unique(data)) == {0, 1, 2}  # else these tests show little


def test_stdout_has_the_volumes(scan, model, tmp_path):
    result = segment(scan, model, tmp_path / "m.nii.gz")
    data, affine = load(tmp_path / "m.nii.gz")
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    for value, name in ((1, "anterior"), (2, "posterior")):
        line = next(l for l in result.out.splitlines() if name in l)
        assert float(line.split()[-2]) == pytest.approx((data == value).sum() * ml, abs=1e-3)


def test_quiet_says_nothing(scan, model, tmp_path):
    result = segment(scan, model, tmp_path / "m.nii.gz", "-q")
    assert result.out == "" and result.err == ""


def test_closed_streams_are_no_files(scan, model, tmp_path):
    """Files get the lowest numbers that are free: those of streams that the caller has closed must not be."""
    for name, closed in (("all", ""), ("none", "<&- 2>&-")):
        line = 'exec "$@" ' + closed
        args = command("segment", scan, "-m", model, "-v", "--probabilities", "--format", "nii", "-o", f"{tmp_path / name}/")
        done = subprocess.run(["sh", "-c", line, "sh", *args], capture_output=True, env=environment())
        assert done.returncode == 0 and (done.stderr == b"") == bool(closed)
    made = files(tmp_path / "all")
    assert made == files(tmp_path / "none") and len([f for f in made if "_prob_" in f]) == 3
    for f in made:
        assert f.endswith(".json") or (tmp_path / "all" / f).read_bytes() == (tmp_path / "none" / f).read_bytes(), f


def test_sidecar_report_and_stats(scan, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    segment(scan, model, out / "m.nii.gz", "--report", out / "r.json", "--stats", out / "s.json", "--preview")
    assert files(out) == ["m.json", "m.nii.gz", "m.png", "m.tsv", "r.json", "s.json"]
    assert open(out / "m.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n"

    sidecar = json.load(open(out / "m.json"))
    assert sidecar["input_sha256"] == sha256(scan)
    assert sidecar["model"]["sha256"] == sha256(model)
    assert {o["role"]: o["sha256"] for o in sidecar["outputs"]} == {
        "mask": sha256(out / "m.nii.gz"), "preview": sha256(out / "m.png"), "table": sha256(out / "m.tsv")}
    assert sidecar["options"]["step"] == 0.5 and sidecar["options"]["tta"] is False

    text = open(out / "r.json").read()
    report = json.loads(text)
    schema = json.load(open(os.path.join(ROOT, "docs/report.schema.json")))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)
    assert "scan" not in text and str(tmp_path) not in text
    case = report["cases"][0]
    assert case["status"] == "done" and case["geometry"]["dims"] == [20, 24, 18]
    assert case["input_sha256"] == sha256(scan)
    assert case["outputs"][-1] == {"role": "mask", "sha256": sha256(out / "m.nii.gz")}
    assert case["peak_memory_bytes"] > 1e6 and 0 < case["times_s"]["network"] <= case["times_s"]["total"]

    data, affine = load(out / "m.nii.gz")
    image = load(scan)[0].astype(float)
    for label in json.load(open(out / "s.json"))["cases"][0]["labels"]:
        inside = image[data == label["value"]]
        assert label["voxels"] == inside.size
        assert label["ml"] == pytest.approx(inside.size * abs(np.linalg.det(affine[:3, :3])) / 1000, rel=1e-6)
        assert label["mean"] == pytest.approx(inside.mean(), rel=1e-6)
        assert label["sd"] == pytest.approx(inside.std(), rel=1e-4)


def test_log_paths_opts_in(scan, model, tmp_path):
    segment(scan, model, tmp_path / "m.nii.gz", "--report", tmp_path / "r.json", "--log-paths")
    case = json.load(open(tmp_path / "r.json"))["cases"][0]
    assert case["input_paths"] == [str(scan)] and case["output_path"] == str(tmp_path / "m.nii.gz")


def test_bits_do_not_depend_on_threads(scan, model, tmp_path):
    hashes = set()
    for threads in (1, 2, 3, 5, 7, 8, 16):
        out = tmp_path / f"t{threads}.nii.gz"
        segment(scan, model, out, "--threads", threads)
        hashes.add(hashlib.sha256(load(out)[0].tobytes()).hexdigest())
    assert len(hashes) == 1


def test_bf16(plain, model, tmp_path):
    """Where the processor has it: the same bits for any --threads, nearly fp32's mask, named in the report."""
    scan, mask = plain
    out = tmp_path / "bf16.nii.gz"
    if " avx512_bf16" not in open("/proc/cpuinfo").read():
        line = run("segment", scan, "-m", model, "-o", out, "--precision", "bf16").error_line(5)
        assert "bf16" in line and "AVX512_BF16" in line and "--precision fp32" in line
        return
    hashes = set()
    for threads in (1, 2, 3, 5, 7, 8, 16):
        segment(scan, model, out, "--precision", "bf16", "--threads", threads, "--overwrite", "--report",
                tmp_path / "r.json")
        hashes.add(hashlib.sha256(load(out)[0].tobytes()).hexdigest())
    assert len(hashes) == 1
    found, expected = load(out)[0], load(mask)[0]
    differ = (found != expected).sum() / ((found != 0) | (expected != 0)).sum()
    assert differ < 0.01  # of the labelled voxels; 0.0065 measured
    assert json.load(open(tmp_path / "r.json"))["options"]["precision"] == "bf16"


def test_tta_and_step_change_what_they_should(plain, model, tmp_path):
    scan, mask = plain
    segment(scan, model, tmp_path / "tta.nii.gz", "--tta")
    segment(scan, model, tmp_path / "step.nii.gz", "--step", "0.25")
    segment(scan, model, tmp_path / "no.nii.gz", "--tta", "--no-tta", "--step=0.5")
    base = load(mask)[0]
    assert not np.array_equal(load(tmp_path / "tta.nii.gz")[0], base)
    assert not np.array_equal(load(tmp_path / "step.nii.gz")[0], base)
    assert np.array_equal(load(tmp_path / "no.nii.gz")[0], base)


@pytest.mark.parametrize("labels, kept", [("anterior", [1]), ("2", [2]), ("posterior,1", [1, 2])])
def test_label_subset(plain, model, tmp_path, labels, kept):
    scan, mask = plain
    segment(scan, model, tmp_path / "m.nii.gz", "--labels", labels, "--stats", tmp_path / "s.json")
    listed = json.load(open(tmp_path / "s.json"))["cases"][0]["labels"]
    assert [label["value"] for label in listed] == kept  # no "0 ml" of what was not asked for
    base = load(mask)[0]
    assert np.array_equal(load(tmp_path / "m.nii.gz")[0], np.where(np.isin(base, kept), base, 0))


def test_split(plain, model, tmp_path):
    scan, mask = plain
    out = tmp_path / "out"
    segment(scan, model, out, "--split")
    assert files(out) == ["scan.json", "scan_anterior.nii.gz", "scan_posterior.nii.gz"]
    base = load(mask)[0]
    for value, name in ((1, "anterior"), (2, "posterior")):
        assert np.array_equal(load(out / f"scan_{name}.nii.gz")[0], base == value)


def test_probabilities(plain, model, tmp_path):
    scan, mask = plain
    segment(scan, model, tmp_path / "m.nii.gz", "--probabilities")
    names = ["background", "anterior", "posterior"]
    maps = np.stack([load(tmp_path / f"m_prob_{n}.nii.gz")[0] for n in names])
    assert maps.dtype == np.float32
    assert np.abs(maps.sum(0) - 1).max() < 1e-5
    base = load(mask)[0]
    assert np.array_equal(load(tmp_path / "m.nii.gz")[0], base)
    top = np.sort(maps, axis=0)
    clear = top[-1] - top[-2] > 1e-6
    assert np.array_equal(maps.argmax(0)[clear], base[clear])
    assert np.array_equal(nibabel.load(tmp_path / "m_prob_anterior.nii.gz").affine, nibabel.load(scan).affine)


def largest(data, label):
    """Ties go to the component met first in memory order (x fastest)."""
    data = data.T
    parts, n = scipy.ndimage.label(data == label, np.ones((3, 3, 3)))
    if n < 2:
        return data.T
    sizes = np.bincount(parts.ravel())[1:]
    return np.where((data == label) & (parts != 1 + sizes.argmax()), 0, data).T


def test_keep_largest(plain, model, tmp_path):
    scan, mask = plain
    base = load(mask)[0]
    segment(scan, model, tmp_path / "all.nii.gz", "--keep-largest")
    segment(scan, model, tmp_path / "one.nii.gz", "--keep-largest=anterior")
    expected = largest(largest(base, 1), 2)
    assert not np.array_equal(expected, base)
    assert np.array_equal(load(tmp_path / "all.nii.gz")[0], expected)
    assert np.array_equal(load(tmp_path / "one.nii.gz")[0], largest(base, 1))


def test_remove_small(plain, model, tmp_path):
    scan, mask = plain
    base, affine = load(mask)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    segment(scan, model, tmp_path / "m.nii.gz", "--remove-small", 8)
    expected = base.copy()
    for label in (1, 2):
        parts, _ = scipy.ndimage.label(base == label, np.ones((3, 3, 3)))
        small = np.bincount(parts.ravel()) * voxel < 8
        small[0] = False
        expected[small[parts]] = 0
    assert not np.array_equal(expected, base)
    assert np.array_equal(load(tmp_path / "m.nii.gz")[0], expected)


@pytest.mark.parametrize("ending", ["nii", "nrrd", "seg.nrrd", "mha"])
def test_formats(plain, model, tmp_path, ending):
    scan, mask = plain
    out = tmp_path / f"m.{ending}"
    result = run("segment", scan, "-m", model, "-o", out)
    if "not in this build" in result.err:
        result.error_line(1)
        assert files(tmp_path) == []
        pytest.skip(f"{ending} is not in this build")
    assert result.code == 0, result.err
    assert files(tmp_path) == sorted(["m.json", f"m.{ending}"] + ["m.tsv"] * (ending != "seg.nrrd"))
    if ending == "nii":
        data, affine = load(out)
    else:
        sitk = pytest.importorskip("SimpleITK")
        image = sitk.ReadImage(str(out))
        data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        lps = np.diag([-1.0, -1, 1])
        affine = np.eye(4)
        affine[:3, :3] = lps @ np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
        affine[:3, 3] = lps @ image.GetOrigin()
    base, expected = load(mask)
    assert np.abs(affine - expected).max() < 1e-4
    assert np.array_equal(data, base)


TABLE = "index\tname\tcolor\n1\tanterior\t#e67850\n2\tposterior\t#508ce6\n"  # names, colours: tiny_model.LABELS


@pytest.mark.parametrize("name", ["sub-01_dseg.nii.gz", "sub-01_dseg.nii", "sub-01_dseg.nrrd", "sub-01_dseg.mha"])
def test_label_table(scan, model, tmp_path, name):
    """As BIDS has it, beside formats without names of their own; one of the outputs that --resume confirms."""
    result = run("segment", scan, "-m", model, "-o", tmp_path / name)
    if "not in this build" in result.err:
        pytest.skip(f"{name} is not in this build")
    table = tmp_path / "sub-01_dseg.tsv"
    assert result.code == 0 and table.read_text() == TABLE
    sidecar = json.load(open(tmp_path / "sub-01_dseg.json"))
    assert [o["role"] for o in sidecar["outputs"]] == ["table", "mask"]
    assert sidecar["outputs"][0]["sha256"] == sha256(table)
    table.write_text("mine")
    segment(scan, model, tmp_path / name, "--resume")
    assert table.read_text() == TABLE
    segment(scan, model, tmp_path / name, "--overwrite", "--labels", "posterior")
    assert table.read_text().splitlines() == [TABLE.splitlines()[k] for k in (0, 2)]


def test_label_table_of_another_is_not_replaced(scan, model, tmp_path):
    (tmp_path / "m.tsv").write_text("mine")
    before = files(tmp_path)
    line = run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz").error_line(4)
    assert "m.tsv" in line and files(tmp_path) == before and (tmp_path / "m.tsv").read_text() == "mine"


def test_no_label_table_where_the_mask_cannot_be_put(scan, model, tmp_path):
    """Its rename comes first: it is taken back when the mask's fails."""
    (tmp_path / "out" / "scan.nii.gz").mkdir(parents=True)
    line = run("segment", scan, "-m", model, "-o", tmp_path / "out", "--overwrite").error_line(4)
    assert "scan.nii.gz" in line and files(tmp_path / "out") == ["scan.nii.gz"]


def test_format_option_names_the_files_of_a_folder(scan, model, tmp_path):
    segment(scan, model, tmp_path / "out", "--format", "nii")
    assert files(tmp_path / "out") == ["scan.json", "scan.nii", "scan.tsv"]


def test_two_channels_by_name_and_by_number(model2, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "p_0000.nii.gz", 1)
    save(folder / "p_0001.nii.gz", 2)
    segment(folder, model2, tmp_path / "a")
    assert files(tmp_path / "a") == ["p.json", "p.nii.gz", "p.tsv"]
    result = run("segment", "-m", model2, "-o", tmp_path / "b.nii.gz", "--channel", f"T2w={folder}/p_0001.nii.gz",
                 "--channel", f"T1w={folder}/p_0000.nii.gz")
    assert result.code == 0, result.err
    result = run("segment", "-m", model2, "-o", tmp_path / "c.nii.gz", "--channel", f"T1w={folder}/p_0001.nii.gz",
                 "--channel", f"T2w={folder}/p_0000.nii.gz")
    assert result.code == 0, result.err
    a, b, c = (load(tmp_path / p)[0] for p in ("a/p.nii.gz", "b.nii.gz", "c.nii.gz"))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    # Two files of one case may also be typed.
    segment(folder / "p_0001.nii.gz", model2, tmp_path / "d", folder / "p_0000.nii.gz")
    assert np.array_equal(load(tmp_path / "d/p.nii.gz")[0], a)


@pytest.mark.parametrize("name", ["Ünïcödé 脳.nii.gz", "with space.nii.gz", "quote'\"$x.nii.gz", "-dash.nii.gz",
                                  "two\nlines.nii.gz"])
def test_odd_names(model, tmp_path, name):
    folder = tmp_path / "ein Ordner ä"
    folder.mkdir()
    save(folder / name)
    result = run("segment", "-m", model, "-o", "out ü", "--", name, cwd=folder)
    assert result.code == 0, result.err
    assert files(folder / "out ü") == sorted(name.replace(".nii.gz", e) for e in (".json", ".nii.gz", ".tsv"))


def test_model_by_name_and_by_fit(scan, model, model2, tmp_path):
    from conftest import environment
    models = tmp_path / "models"
    models.mkdir()
    for source in (model, model2):
        os.symlink(source, models / os.path.basename(source))
    env = environment(VOXMAMBA_MODELS=models)
    assert run("segment", scan, "-m", "tiny", "-o", tmp_path / "a.nii.gz", env=env).code == 0
    # Without a name: by channels. Other models may be installed beside these, so a clash is possible too.
    result = run("segment", scan, "-o", tmp_path / "b.nii.gz", env=env)
    if result.code != 0:
        assert "more than one model fits" in result.error_line(3) and "tiny" in result.err
        assert "two" not in result.err
    result = run("segment", scan, "-m", "tinny", "-o", tmp_path / "c.nii.gz", env=env)
    line = result.error_line(3)
    assert "tinny" in line and "tiny" in line


def test_the_shipped_model_that_fits_is_taken(tmp_path):
    """A crop around one hippocampus is no head and neck: without a name hippocampus is taken, and head_neck refuses."""
    sample = os.path.join(ROOT, "sample-data", "hippocampus_380.nii.gz")
    env = environment(VOXMAMBA_MODELS=os.path.join(ROOT, "models"))
    done = run("segment", sample, "-o", tmp_path / "m.nii.gz", "--report", tmp_path / "r.json", env=env)
    assert done.code == 0, done.err
    assert json.load(open(tmp_path / "r.json"))["model"]["name"] == "hippocampus"
    line = run("segment", sample, "-m", "head_neck", "-o", tmp_path / "n.nii.gz", env=env).error_line(3)
    assert "the model 'head_neck' is for 180..450" in line


def test_empty_mask_warns(tmp_path, model):
    value = tiny_model.recipe("empty")
    weights = tiny_model.tensors(value, 1)
    weights["decoder.seg_layers.0.weight"][:] = 0
    weights["decoder.seg_layers.0.bias"][:] = [1, 0, 0]
    path = tmp_path / "empty.safetensors"
    path.write_bytes(tiny_model.safetensors_bytes(weights, {"voxmamba": json.dumps(value)}))
    save(tmp_path / "s.nii.gz")
    result = segment(tmp_path / "s.nii.gz", path, tmp_path / "m.nii.gz", "--report", tmp_path / "r.json")
    assert "warning: " in result.err and "empty" in result.err
    assert not load(tmp_path / "m.nii.gz")[0].any()
    assert json.load(open(tmp_path / "r.json"))["cases"][0]["warnings"]


@pytest.mark.parametrize("axes", ["LPS", "PSR"])
def test_shipped_model_sees_the_same_anatomy(tmp_path, axes):
    """A scan that was stored in other axes gives the same mask, voxel for voxel."""
    source = nibabel.load(os.path.join(ROOT, "sample-data", "hippocampus_380.nii.gz"))
    there = nibabel.orientations.ornt_transform(nibabel.io_orientation(source.affine),
                                                nibabel.orientations.axcodes2ornt(axes))
    turned = source.as_reoriented(there)
    nibabel.save(turned, str(tmp_path / "turned.nii.gz"))
    model = os.path.join(ROOT, "models", "hippocampus.safetensors")
    segment(source.get_filename(), model, tmp_path / "m.nii.gz")
    segment(tmp_path / "turned.nii.gz", model, tmp_path / "t.nii.gz")
    expected = nibabel.load(tmp_path / "m.nii.gz").as_reoriented(there)
    found = nibabel.load(tmp_path / "t.nii.gz")
    assert np.allclose(found.affine, turned.affine)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))


def test_output_never_replaces_the_input(scan, model, tmp_path):
    before = sha256(scan)
    line = run("segment", scan, "-m", model, "-o", tmp_path, "--overwrite").error_line(1)
    assert "input" in line
    assert sha256(scan) == before and files(tmp_path) == ["scan.nii.gz"]
    os.link(scan, tmp_path / "link.json")
    for option in ("--stats", "--report"):
        line = run("segment", scan, "-m", model, "-o", tmp_path / "out", option, tmp_path / "link.json", "--overwrite").error_line(1)
        assert "input" in line
    assert sha256(scan) == before and files(tmp_path) == ["link.json", "scan.nii.gz"]


@pytest.mark.parametrize("name, word", [("m.hdr", "one file"), ("m.img", "one file"), ("m.mhd", "one file"),
                                        ("m.nhdr", "one file"), ("m.txt", "m.txt: unknown")])
def test_names_that_no_mask_has(scan, model, tmp_path, name, word):
    """A single-file NIfTI named .hdr or .img would be unreadable everywhere; .mhd and .nhdr promise a second file."""
    assert word in run("segment", scan, "-m", model, "-o", tmp_path / name).error_line(1)
    assert files(tmp_path) == ["scan.nii.gz"]


def test_resume_spares_json_of_others(scan, model, tmp_path):
    (tmp_path / "m.json").write_text('{"SkullStripped": false}')
    for flag in ((), ("--resume",)):
        line = run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", *flag).error_line(4)
        assert "m.json" in line
    assert (tmp_path / "m.json").read_text() == '{"SkullStripped": false}'
    (tmp_path / "m.json").write_text("{")  # our own, damaged
    segment(scan, model, tmp_path / "m.nii.gz", "--resume")


def test_dry_run_writes_nothing(scan, model, tmp_path):
    result = segment(scan, model, tmp_path / "out", "--dry-run", "--report", tmp_path / "r.json")
    assert "MB peak" in result.out and "GFLOP" in result.out
    assert files(tmp_path) == ["scan.nii.gz"]


def test_json_log(scan, model, tmp_path):
    result = segment(scan, model, tmp_path / "m.nii.gz", "--log-format", "json", "-v")
    lines = [json.loads(l) for l in result.err.splitlines()]
    assert lines and all("level" in l for l in lines)
    assert "scan" not in result.err
    bad = run("segment", tmp_path / "gone.nii.gz", "-m", model, "-o", tmp_path / "x.nii.gz", "--log-format", "json")
    assert bad.code == 2
    last = json.loads(bad.err.splitlines()[-1])
    assert last["level"] == "error" and last["code"] == 2 and "gone" not in bad.err


def raw_run(*args):
    done = subprocess.run([os.fsencode(PROGRAM), *[os.fsencode(a) for a in args]], capture_output=True,
                          env=environment())
    return done.returncode, done.stderr


@pytest.mark.parametrize("name, shown", [(b"\xff.nii", "\ufffd.nii"), (b"caf\xc3\xa9 \xed\xa0\x80.nii", None)])
def test_json_log_is_utf8(model, tmp_path, name, shown):
    path = os.fsencode(tmp_path) + b"/" + name
    code, err = raw_run("segment", path, "-m", model, "-o", tmp_path / "o", "--log-format", "json", "--log-paths")
    assert code == 2
    last = json.loads(err.decode("utf-8").splitlines()[-1])
    assert last["file"].endswith(shown or "/caf\u00e9 \ufffd\ufffd\ufffd.nii")


def test_json_log_cuts_no_character(tmp_path):
    """What is too long for a message ends somewhere in a character: still UTF-8."""
    for shift in range(2):
        code, err = raw_run("segment", "x.nii", "-o", "o", "--log-format", "json", "--shard",
                            b"a" * shift + b"\xc3\xa9" * 2000)
        assert code == 1 and json.loads(err.decode("utf-8"))["level"] == "error"


@pytest.mark.parametrize("raw, shown", [(b"a\xc2\x9b31mb", b"a\\xc2\\x9b31mb"), (b"\xc2\x80", b"\\xc2\\x80"),
                                        (b"\x9b2J", b"\\x9b2J"), (b"\x1b[2J\x7f\n", b"\\x1b[2J\\x7f\\x0a"),
                                        (b"\xc2\xa0\xc3\xa9\xe2\x82\xac", b"\xc2\xa0\xc3\xa9\xe2\x82\xac")])
def test_messages_hold_no_control_characters(model, tmp_path, raw, shown):
    code, err = raw_run("segment", os.fsencode(tmp_path) + b"/" + raw + b".nii", "-m", model, "-o", tmp_path / "o")
    assert code == 2 and b"/" + shown + b".nii: " in err.splitlines()[-1]


def test_memory_is_flat_in_volume_header(model, tmp_path):
    """A plan needs the header only: 4000^3 voxels are planned, not read."""
    image = volume(shape=(8, 8, 8))
    header = image.header.copy()
    header.set_data_shape((1500, 1500, 1500))
    path = tmp_path / "huge.nii"
    with open(path, "wb") as f:
        f.write(header.binaryblock + b"\0" * 4)
        f.truncate(352 + 2 * 1500 ** 3)
    result = run("segment", path, "-m", model, "-o", tmp_path / "o.nii.gz", "--dry-run")
    assert result.code == 0 and "GFLOP" in result.out, result.err
