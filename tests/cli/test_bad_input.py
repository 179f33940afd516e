"""Bad input: one clear line, the documented exit code, no output file."""
import gzip
import json
import os
import shutil
import struct

import nibabel
import numpy as np
import pytest
import tiny_model
from conftest import environment, files, run, save, volume


def refuse(path, model, tmp_path, code, *args, name=None):
    """Segments path, expects one line and nothing written; gives the line."""
    out = tmp_path / "output-folder"
    out.mkdir(exist_ok=True)
    line = run("segment", path, "-m", model, "-o", out / "mask.nii.gz", "--report", out / "r.json", *args).error_line(code)
    left = files(out)
    assert left in ([], ["r.json"]), left  # a report may say why
    for n in left:
        os.unlink(out / n)
    assert (name or os.path.basename(str(path))) in line
    assert len(line) < 400
    return line


def raw(tmp_path, edit=None, name="bad.nii", seed=0, **more):
    """A valid .nii whose 348-byte header edit() changes in place."""
    nibabel.save(volume(seed, **more), str(tmp_path / "good.nii"))
    data = bytearray((tmp_path / "good.nii").read_bytes())
    if edit:
        edit(data)
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(data), mtime=0) if name.endswith(".gz") else data)
    return path


def put(offset, form, *values):
    return lambda data: struct.pack_into("<" + form, data, offset, *values)


def test_empty_file(model, tmp_path):
    for name in ("e.nii", "e.nii.gz", "e.nrrd", "e.mha"):
        (tmp_path / name).write_bytes(b"")
        refuse(tmp_path / name, model, tmp_path, 2)


def test_missing_file(model, tmp_path):
    assert "o such file" in refuse(tmp_path / "gone.nii.gz", model, tmp_path, 2)


def test_missing_file_with_several_models_to_choose_from(model, model2, tmp_path):
    """What cannot be read is said, not that it fits them all."""
    for name in (model, model2):
        shutil.copy(name, tmp_path)
    env = environment(VOXMAMBA_MODELS=tmp_path)
    for given, code in (("not there.nii", 2), (os.path.basename(model), 2)):
        line = run("segment", tmp_path / given, "-o", tmp_path / "o.nii", env=env).error_line(code)
        assert given in line and "model" not in line.replace(given, ""), line
    line = run("segment", tmp_path / "a.nii", tmp_path / "b.nii", "-o", tmp_path / "out", env=env).error_line(2)
    assert "a.nii" in line and not (tmp_path / "out").exists()


def test_pipe_and_device(model, tmp_path):
    """Neither waits for a writer that never comes nor reads without end."""
    os.mkfifo(tmp_path / "pipe.nii.gz")
    os.symlink("/dev/zero", tmp_path / "zero.nii")
    for name in ("pipe.nii.gz", "zero.nii"):
        assert "not a regular file" in refuse(tmp_path / name, model, tmp_path, 2)


def test_truncated_gzip(model, tmp_path):
    data = save(tmp_path / "s.nii.gz").read_bytes()
    for n in (20, 300, len(data) // 2, len(data) - 20):
        (tmp_path / "t.nii.gz").write_bytes(data[:n])
        refuse(tmp_path / "t.nii.gz", model, tmp_path, 2)


def test_missing_trailer(model, tmp_path):
    data = save(tmp_path / "s.nii.gz").read_bytes()
    for n in (8, 4, 1):
        (tmp_path / "t.nii.gz").write_bytes(data[:-n])
        refuse(tmp_path / "t.nii.gz", model, tmp_path, 2)


def test_bad_checksum(model, tmp_path):
    data = bytearray(save(tmp_path / "s.nii.gz").read_bytes())
    data[-8] ^= 1
    (tmp_path / "t.nii.gz").write_bytes(data)
    refuse(tmp_path / "t.nii.gz", model, tmp_path, 2)


def test_truncated_plain(model, tmp_path):
    data = raw(tmp_path).read_bytes()
    for n in (100, 351, len(data) - 1):
        (tmp_path / "t.nii").write_bytes(data[:n])
        refuse(tmp_path / "t.nii", model, tmp_path, 2)


@pytest.mark.parametrize("dims", [(32767, 32767, 32767), (0, 24, 18), (-20, 24, 18), (20, -1, 18), (20, 24, 0)])
def test_sizes_that_overflow_or_are_not_positive(model, tmp_path, dims):
    refuse(raw(tmp_path, put(42, "3h", *dims)), model, tmp_path, 2)


def test_nifti2_sizes_that_overflow(model, tmp_path):
    image = nibabel.Nifti2Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
    nibabel.save(image, str(tmp_path / "n2.nii"))
    data = bytearray((tmp_path / "n2.nii").read_bytes())
    for dims in ((2 ** 62, 2 ** 62, 8), (2 ** 63 - 1, 1, 1), (2 ** 21, 2 ** 21, 2 ** 21), (-8, 8, 8)):
        struct.pack_into("<3q", data, 24, *dims)
        (tmp_path / "bad2.nii").write_bytes(data)
        refuse(tmp_path / "bad2.nii", model, tmp_path, 2)


@pytest.mark.parametrize("offset", [float("nan"), 1e30, -352.0, float("inf")])
def test_vox_offset(model, tmp_path, offset):
    for name in ("bad.nii", "bad.nii.gz"):
        refuse(raw(tmp_path, put(108, "f", offset), name), model, tmp_path, 2)


def test_analyze(model, tmp_path):
    nibabel.save(nibabel.Spm99AnalyzeImage(np.zeros((20, 20, 20), np.int16), np.eye(4)), str(tmp_path / "old.img"))
    assert "ANALYZE" in refuse(tmp_path / "old.hdr", model, tmp_path, 2).upper()


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 18, 3), (20, 24, 18, 1, 2)])
def test_2d_and_4d(model, tmp_path, shape):
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), str(tmp_path / "dims.nii.gz"))
    refuse(tmp_path / "dims.nii.gz", model, tmp_path, 2)


def test_rgb(model, tmp_path):
    rgb = np.zeros((20, 24, 18), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), str(tmp_path / "rgb.nii.gz"))
    refuse(tmp_path / "rgb.nii.gz", model, tmp_path, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_voxels(model, tmp_path, value):
    data = np.asarray(volume().dataobj).astype(np.float32)
    data[3, 4, 5] = value
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), str(tmp_path / "nan.nii.gz"))
    refuse(tmp_path / "nan.nii.gz", model, tmp_path, 2)


def test_not_finite_scaling(model, tmp_path):
    """A NaN slope means "no scaling" (nibabel's rule); a NaN intercept beside a slope is an error."""
    refuse(raw(tmp_path, put(112, "2f", 2.0, float("nan")), dtype=np.float32), model, tmp_path, 2)


def test_constant_image(model, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((20, 24, 18), 7, np.int16), np.eye(4)), str(tmp_path / "c.nii.gz"))
    refuse(tmp_path / "c.nii.gz", model, tmp_path, 2)


@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_spacing_without_transforms(model, tmp_path, spacing):
    def edit(data):
        struct.pack_into("<2h", data, 252, 0, 0)  # no qform, no sform: pixdim counts
        struct.pack_into("<f", data, 80, spacing)
    refuse(raw(tmp_path, edit), model, tmp_path, 2)


def test_spacing_of_the_qform(model, tmp_path):
    def edit(data):
        struct.pack_into("<2h", data, 252, 1, 0)
        struct.pack_into("<f", data, 84, float("nan"))
    refuse(raw(tmp_path, edit), model, tmp_path, 2)


@pytest.mark.parametrize("row", [(0, 0, 0, 0), (float("nan"), 0, 0, 0), (float("inf"), 0, 0, 0)])
def test_singular_affine(model, tmp_path, row):
    def edit(data):
        struct.pack_into("<2h", data, 252, 0, 1)
        struct.pack_into("<4f", data, 280, *row)
    refuse(raw(tmp_path, edit), model, tmp_path, 2)


def test_channels(model, model2, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "p_0000.nii.gz", 1)
    save(folder / "p_0001.nii.gz", 2)
    line = refuse(folder / "p_0000.nii.gz", model2, tmp_path, 2)
    assert "1 channel" in line and "2" in line
    line = run("segment", folder, "-m", model, "-o", tmp_path / "o").error_line(2)
    assert "2 channels" in line
    line = run("segment", "-m", model2, "-o", tmp_path / "o.nii.gz", "--channel", f"T1w={folder}/p_0000.nii.gz").error_line(2)
    assert "T2w" in line
    line = run("segment", "-m", model2, "-o", tmp_path / "o.nii.gz", "--channel", f"T1={folder}/p_0000.nii.gz").error_line(1)
    assert "T1w" in line
    run("segment", "-m", model2, "-o", tmp_path / "o.nii.gz", "--channel", "nonsense").error_line(1)
    run("segment", folder, "-m", model2, "-o", tmp_path / "o.nii.gz", "--channel", "T1w=x").error_line(1)


def test_channels_of_other_grids(model2, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "p_0000.nii.gz", 1)
    save(folder / "p_0001.nii.gz", 2, shape=(20, 24, 19))
    line = run("segment", folder, "-m", model2, "-o", tmp_path / "o").error_line(2)
    assert "p_0001" in line and "20 x 24 x 19" in line
    moved = volume(2)
    affine = moved.affine.copy()
    affine[0, 3] += 0.5
    nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), affine), str(folder / "p_0001.nii.gz"))
    assert "0.50 mm" in run("segment", folder, "-m", model2, "-o", tmp_path / "o").error_line(2)


def test_far_from_the_field_of_view(tmp_path):
    value = tiny_model.recipe("small", spacing=(6, 6, 6), field_of_view_mm={"min": [20, 20, 20], "max": [40, 40, 40]})
    model = tiny_model.write(str(tmp_path / "small.safetensors"), value)
    image = nibabel.Nifti1Image(np.asarray(volume().dataobj), np.diag([6.0, 6, 6, 1]))
    nibabel.save(image, str(tmp_path / "head.nii.gz"))
    line = refuse(tmp_path / "head.nii.gz", model, tmp_path, 3)
    assert "--force" in line
    result = run("segment", tmp_path / "head.nii.gz", "-m", model, "-o", tmp_path / "m.nii.gz", "--force", "--step", "1")
    assert result.code == 0 and "warning: " in result.err


def test_text_named_nifti(model, tmp_path):
    for name in ("t.nii.gz", "t.nii", "t.nrrd", "t.mha"):
        (tmp_path / name).write_text("this is not a volume\n" * 50)
        refuse(tmp_path / name, model, tmp_path, 2)


def test_folder_without_a_case(model, tmp_path):
    (tmp_path / "none").mkdir()
    refuse(tmp_path / "none", model, tmp_path, 2)


def test_output_folder_missing_or_not_writable(scan, model, tmp_path):
    line = run("segment", scan, "-m", model, "-o", tmp_path / "no" / "such" / "m.nii.gz").error_line(4)
    assert "m.nii.gz" in line
    (tmp_path / "file").write_text("x")
    run("segment", scan, "-m", model, "-o", tmp_path / "file" / "m.nii.gz").error_line(4)
    run("segment", scan, "-m", model, "-o", str(tmp_path / "file") + "/").error_line(4)
    run("segment", scan, "-m", model, "-o", "/proc/m.nii.gz").error_line(4)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o555)
        run("segment", scan, "-m", model, "-o", tmp_path / "locked" / "m.nii.gz").error_line(4)
    assert files(tmp_path) == sorted(["file", "scan.nii.gz"] + ["locked"] * (os.geteuid() != 0))


@pytest.mark.parametrize("name", ["-", ".nii.gz", ".NII", "sub/.nrrd", ".seg.nrrd", "./.mha"])
def test_outputs_without_a_name(scan, model, tmp_path, name):
    line = run("segment", scan, "-m", model, "-o", name, cwd=tmp_path).error_line(1)
    assert f"-o {name}: " in line
    assert files(tmp_path) == ["scan.nii.gz"]


def test_unknown_formats(scan, model, tmp_path):
    run("segment", scan, "-m", model, "-o", tmp_path / "m.png").error_line(1)
    run("segment", scan, "-m", model, "-o", tmp_path / "o", "--format", "png").error_line(1)
    run("segment", scan, "-m", model, "-o", tmp_path / "m.nii", "--format", "nii.gz").error_line(1)
    line = run("segment", scan, "-m", model, "-o", tmp_path / "o", "--format", "dcmseg").error_line(1)
    assert "not in this build" in line or "DICOM input" in line
    assert files(tmp_path) == ["scan.nii.gz"]


# ---- Models ----


def hostile(tmp_path, data):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    return path


def refuse_model(scan, tmp_path, data):
    line = refuse(scan, hostile(tmp_path, data), tmp_path, 3, name="bad.safetensors")
    for verb in (("info",), ("info", "--plan"), ("info", "--json")):
        run(*verb, tmp_path / "bad.safetensors").error_line(3)
    return line


def split_model(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def join_model(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_truncated_models(scan, model, tmp_path):
    data = open(model, "rb").read()
    for n in (0, 4, 8, 9, 200, len(data) // 2, len(data) - 1):
        refuse_model(scan, tmp_path, data[:n])
    refuse_model(scan, tmp_path, data + b"\0")


def test_header_length(scan, model, tmp_path):
    data = open(model, "rb").read()
    for n in (2 ** 63, 2 ** 64 - 1, 2 ** 63 - 1, len(data), 0, 1):
        refuse_model(scan, tmp_path, struct.pack("<Q", n) + data[8:])


def test_wrong_shape(scan, model, tmp_path):
    header, body = split_model(model)
    header["encoder.stages.0.0.convs.0.conv.weight"]["shape"] = [1, 4, 3, 3, 3]
    line = refuse_model(scan, tmp_path, join_model(header, body))
    assert "encoder.stages.0.0.convs.0.conv.weight" in line


@pytest.mark.parametrize("offsets", [[-4, 12], [0, 12], [4, 20], [0, 2 ** 63], [16, 0], [1e300, 2e300], [0.5, 16.5]])
def test_offsets(scan, model, tmp_path, offsets):
    header, body = split_model(model)
    name = next(n for n, t in header.items() if n != "__metadata__" and t["shape"] == [4])
    header[name]["data_offsets"] = offsets
    refuse_model(scan, tmp_path, join_model(header, body))


def test_missing_and_unknown_tensors(scan, model, tmp_path):
    value = tiny_model.recipe()
    weights = tiny_model.tensors(value, 1)
    meta = {"voxmamba": json.dumps(value)}
    less = dict(weights)
    less.pop("decoder.seg_layers.0.bias")
    assert "decoder.seg_layers.0.bias" in refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(less, meta))
    more = dict(weights, **{"left.over": np.zeros(3, "<f4")})
    assert "left.over" in refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(more, meta))


@pytest.mark.parametrize("change", [
    {"format": 2}, {"format": None}, {"surprise": 1}, {"patch_zyx": [16, 16]}, {"patch_zyx": [16, 16, -16]},
    {"patch_zyx": [15, 16, 16]}, {"spacing_zyx_mm": [0, 1, 1]}, {"channels": []}, {"labels": []},
    {"labels": [{"value": 0, "name": "x", "rgb": [1, 2, 3]}]}, {"orientation": "RAR"}, {"mirror_axes": [3]},
    {"network": {}}, {"name": 5}, {"name": "x" * 5000}])
def test_recipes_that_fail_the_schema(scan, tmp_path, change):
    value = tiny_model.recipe()
    weights = tiny_model.tensors(value, 1)
    value.update(change)
    value = {k: v for k, v in value.items() if v is not None}
    refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(weights, {"voxmamba": json.dumps(value)}))


def test_recipes_that_are_no_recipe(scan, tmp_path):
    weights = tiny_model.tensors(tiny_model.recipe(), 1)
    deep = "[" * 100000 + "]" * 100000
    for text in (deep, '{"a":' * 100000 + "1" + "}" * 100000, "", "{", "null", "[]", "\0"):
        refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(weights, {"voxmamba": text}))
    refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(weights, {}))
    refuse_model(scan, tmp_path, tiny_model.safetensors_bytes(weights, {"voxmamba": {"an": "object"}}))
    header = b'{"__metadata__":' + b"[" * 100000
    refuse_model(scan, tmp_path, struct.pack("<Q", len(header)) + header)


def test_not_a_model(scan, tmp_path):
    refuse(scan, tmp_path / "gone.safetensors", tmp_path, 3, name="gone.safetensors")
    refuse(scan, scan, tmp_path, 3, name="scan.nii.gz")


# ---- Words that do not exist ----


def test_unknown_labels(scan, model, tmp_path):
    line = run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", "--labels", "anterior,hat").error_line(1)
    assert "'hat'" in line and "posterior" in line
    run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", "--labels", "7").error_line(1)
    run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", "--labels", "").error_line(1)
    run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", "--keep-largest=hat").error_line(1)
    assert files(tmp_path) == ["scan.nii.gz"]


def test_devices_and_precisions(scan, model, tmp_path):
    for args, code in ((("--device", "cuda"), 5), (("--device", "cuda:0"), 5), (("--device", "cuda:all"), 5),
                       (("--device", "tpu"), 1), (("--precision", "fp16"), 5), (("--precision", "int8"), 1)):
        result = run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", *args)
        if code == 5 and result.code == 0:  # this machine has it
            continue
        result.error_line(code)
        assert files(tmp_path) == ["scan.nii.gz"]


def test_a_missing_device_comes_before_a_bad_image(model, tmp_path):
    """The image is read while a GPU is being opened: the line is the same as if it were not."""
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no volume")
    for args, code in ((("--device", "cuda"), 5), (("--device", "cuda:all"), 5), (("--device", "auto"), 2),
                       (("--device", "cpu"), 2)):
        result = run("segment", bad, "-m", model, "-o", tmp_path / "m.nii.gz", *args)
        if code == 5 and result.code == 2:  # this machine has it
            code = 2
        line = result.error_line(code)
        assert ("bad.nii.gz" in line) == (code == 2)
        assert files(tmp_path) == ["bad.nii.gz"]


@pytest.mark.parametrize("args", [("--step", "0"), ("--step", "1.5"), ("--step", "nan"), ("--step", "x"),
                                  ("--threads", "0"), ("--threads", "-1"), ("--threads", "two"), ("--jobs", "0"),
                                  ("--remove-small", "-3"), ("--remove-small", "-1"), ("--remove-small=-0.5",),
                                  ("--remove-small", "nan"), ("--remove-small", "-inf"), ("--threads", "99999")])
def test_numbers(scan, model, tmp_path, args):
    run("segment", scan, "-m", model, "-o", tmp_path / "m.nii.gz", *args).error_line(1)
    assert files(tmp_path) == ["scan.nii.gz"]
