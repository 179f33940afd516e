"""The scripts of docs/pipelines.md: a drop folder alone; from one station to another with dcmtk's storescp and storescu on
the loopback; and the same through Orthanc, where that is installed (Debian's package orthanc)."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

import nibabel
import numpy as np
import pytest
from conftest import PROGRAM, ROOT, environment, files, load, run

pydicom = pytest.importorskip("pydicom")
from dicom_series import write_series  # noqa: E402

pytestmark = pytest.mark.usefixtures("dicom_is_built")
SCRIPTS = os.path.join(ROOT, "docs", "pipelines")
DROP_FOLDER = os.path.join(SCRIPTS, "drop-folder.sh")


def settings(**more):
    return environment(VOXMAMBA=PROGRAM, QUIET=1, POLL=1, RETRY=1, VOXMAMBA_MODELS=os.path.join(ROOT, "models"), **more)


def drain(root, *options, code=0, **more):
    done = subprocess.run([DROP_FOLDER, "--drain", str(root), *map(str, options)], env=settings(**more), capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout


@contextlib.contextmanager
def running(*args, **more):
    process = subprocess.Popen(list(map(str, args)), stdout=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for(what, condition, seconds=120):
    end = time.time() + seconds
    while time.time() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not in {seconds} s: {what}")


# ---- The drop folder by itself ----

def test_drop_folder(model, tmp_path):
    root, sent = tmp_path / "root of all", tmp_path / "sent"
    sent.mkdir()
    for seed, name in enumerate(("Zoë's study", "bad", "two")):
        write_series(root / "inbox" / name, seed)
    next((root / "inbox" / "bad").glob("*_007")).unlink()
    write_series(root / "inbox" / "two", 5, 4)
    # The first try to deliver fails: nothing is lost, nothing is done twice.
    deliver = f"[ -e '{sent}/tried' ] || {{ touch '{sent}/tried'; exit 1; }}; cp -t '{sent}'"
    log = drain(root, "-m", model, DELIVER=deliver)
    assert files(sent) == ["Zoë's study.dcm", "tried"] and files(root / "done") == ["Zoë's study"]
    assert files(root / "failed") == ["bad", "bad.log", "two", "two.log"]
    assert files(root / "inbox") == [] and [n for n in files(root / "work") if n[0] != "."] == []
    assert files(root / "results" / "Zoë's study") == ["Zoë's study.dcm", "Zoë's study.json"]
    assert log.count("not delivered") == 1 and log.count("exit code 0") == 1 and log.count("exit code 2") == 2
    assert "missing" in (root / "failed" / "bad.log").read_text() and "2 series" in (root / "failed" / "two.log").read_text()
    for text in (log, (root / "failed" / "bad.log").read_text()):
        assert "Zo" not in text and "bad" not in text
    # The same study again is a study of its own; a subset of it replaces nothing.
    first = (root / "results" / "Zoë's study" / "Zoë's study.dcm").read_bytes()
    write_series(root / "inbox" / "Zoë's study", 0, positions=[2.0 * k for k in range(18)])
    drain(root, "-m", model, DELIVER=f"cp -t '{sent}'")
    assert files(root / "done") == ["Zoë's study", "Zoë's study.2"] and "Zoë's study.2.dcm" in files(sent)
    assert (root / "results" / "Zoë's study" / "Zoë's study.dcm").read_bytes() == first


def test_a_killed_drop_folder_goes_on(model, tmp_path):
    root = tmp_path / "root"
    for seed in range(3):
        write_series(root / "inbox" / f"s{seed}", seed)
    with running(DROP_FOLDER, root, "-m", model, "--step", "0.2", "--threads", "1", env=settings()) as process:
        wait_for("a result", lambda: any((root / "done").glob("s*")))
        second = subprocess.run([DROP_FOLDER, root], env=settings(), capture_output=True, text=True)
        assert second.returncode == 1 and "another one" in second.stderr
        process.kill()
    wait_for("the lock", lambda: subprocess.run(["flock", "-n", root / ".lock", "true"]).returncode == 0)
    drain(root, "-m", model, "--step", "0.2")
    assert files(root / "done") == ["s0", "s1", "s2"] and files(root / "failed") == []
    assert all(files(root / "results" / f"s{i}") == [f"s{i}.dcm", f"s{i}.json"] for i in range(3))


def test_a_wrong_option_ends_the_drop_folder(model, tmp_path):
    write_series(tmp_path / "inbox" / "a")
    drain(tmp_path, "-m", model, "--steep", code=1)
    assert files(tmp_path / "work") == [".log", "a"] and files(tmp_path / "failed") == []
    drain(tmp_path, "-m", model)
    assert files(tmp_path / "done") == ["a"]


# ---- From station to station ----

@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample volume in whole numbers: as NIfTI, and as an MR series of the same voxels on the same grid; the mask that
    the shipped model makes of the NIfTI."""
    folder = tmp_path_factory.mktemp("sample")
    image = nibabel.load(os.path.join(ROOT, "sample-data", "hippocampus_380.nii.gz"))
    voxels = np.round(np.asarray(image.dataobj)).astype("<u2")
    assert np.array_equal(image.affine[:3, :3], np.eye(3))
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), image.affine), folder / "sample.nii.gz")
    x, y, z = image.affine[:3, 3]

    def change(d):
        k = d.InstanceNumber - 1
        d.Columns, d.Rows = voxels.shape[:2]
        d.ImageOrientationPatient, d.ImagePositionPatient = [-1, 0, 0, 0, -1, 0], [-x, -y, z + k]
        d.PixelSpacing, d.SpecificCharacterSet, d.PatientName = [1, 1], "ISO_IR 192", "Müller^Zoë"
        d.BitsStored, d.HighBit = 16, 15
        d.PixelData = voxels[:, :, k].T.tobytes()
    write_series(folder / "series", positions=range(voxels.shape[2]), change=change)
    result = run("segment", folder / "sample.nii.gz", "-m", os.path.join(ROOT, "models", "hippocampus.safetensors"), "-o",
                 folder / "mask.nii.gz")
    assert result.code == 0, result.err
    return folder


def check_segmentation(path, sample):
    """The object holds the mask of the sample, voxel by voxel, and belongs to the series."""
    d, source = pydicom.dcmread(path), pydicom.dcmread(next((sample / "series").iterdir()))
    expected = load(sample / "mask.nii.gz")[0]
    frames = np.unpackbits(np.frombuffer(d.PixelData, np.uint8), bitorder="little")
    frames = frames[:d.NumberOfFrames * d.Rows * d.Columns].reshape(d.NumberOfFrames, d.Rows, d.Columns)
    mask = np.zeros_like(expected)
    for frame, item in zip(frames, d.PerFrameFunctionalGroupsSequence):
        segment, k = item.FrameContentSequence[0].DimensionIndexValues
        mask[:, :, k - 1][frame.T == 1] = segment
    assert np.array_equal(mask, expected) and len(np.unique(mask)) == 3
    for name in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "PatientName"):
        assert getattr(d, name) == getattr(source, name)
    assert d.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def answers(port):
    return lambda: subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True).returncode == 0


def send(series, port):
    subprocess.run(["storescu", "-aec", "INBOX", "127.0.0.1", str(port), "+sd", str(series)], check=True)


def test_storescp_to_storescp(sample, tmp_path):
    """storescu -> storescp -> inbox -> segment -> storescu -> storescp."""
    assert shutil.which("storescp"), "this test needs Debian's package dcmtk (scripts/lib.sh)"
    front, back = free_ports(2)
    root, pacs = tmp_path / "root", tmp_path / "pacs"
    pacs.mkdir()
    (root / "inbox").mkdir(parents=True)
    with running("storescp", "-od", root / "inbox", "-su", "study", "+xa", front), running("storescp", "-od", pacs, back):
        wait_for("storescp", answers(front))
        wait_for("storescp", answers(back))
        send(sample / "series", front)
        drain(root, "-m", "hippocampus", DELIVER=f"storescu -R -aec PACS 127.0.0.1 {back}")
    arrived, = pacs.iterdir()
    made, = (root / "results").glob("*/*.dcm")
    assert pydicom.dcmread(arrived) == pydicom.dcmread(made)
    check_segmentation(arrived, sample)


if shutil.which("Orthanc"):
    @pytest.fixture
    def orthanc(tmp_path):
        """An Orthanc of its own: its address and its DICOM port."""
        http, dicom = free_ports(2)
        config = {"StorageDirectory": str(tmp_path / "storage"), "IndexDirectory": str(tmp_path / "storage"), "HttpPort": http,
                  "DicomPort": dicom, "DicomAet": "ORTHANC", "StableAge": 2, "RemoteAccessAllowed": False, "Plugins": []}
        (tmp_path / "orthanc.json").write_text(json.dumps(config))
        with running("Orthanc", tmp_path / "orthanc.json", stderr=subprocess.DEVNULL):
            wait_for("Orthanc", answers(dicom))
            yield f"http://127.0.0.1:{http}", dicom

    def get(url):
        with urllib.request.urlopen(url) as answer:
            return answer.read()

    @pytest.mark.parametrize("back", ["rest", "storescu"])
    def test_orthanc(sample, orthanc, tmp_path, back):
        """storescu -> Orthanc -> inbox -> segment -> Orthanc; the object comes back from Orthanc as it was made."""
        url, dicom = orthanc
        root = tmp_path / "root"
        deliver = f"'{SCRIPTS}/to-orthanc.sh' {url}" if back == "rest" else f"storescu -R -aec ORTHANC 127.0.0.1 {dicom}"

        def segmentations():
            ids = json.loads(get(f"{url}/series"))
            return [s for s in (json.loads(get(f"{url}/series/{i}")) for i in ids) if s["MainDicomTags"]["Modality"] == "SEG"]
        send(sample / "series", dicom)
        with running(f"{SCRIPTS}/from-orthanc.sh", url, root / "inbox", env=settings()), \
                running(DROP_FOLDER, root, "-m", "hippocampus", env=settings(DELIVER=deliver)):
            series, = wait_for("a segmentation", segmentations)
            # It becomes stable too, and is no input: no second round.
            wait_for("its stability", lambda: json.loads(get(f"{url}/series/{series['ID']}"))["IsStable"])
            time.sleep(3)
        assert len(segmentations()) == 1 and len(files(root / "done")) == 1 and files(root / "failed") == []
        (tmp_path / "back.dcm").write_bytes(get(f"{url}/instances/{series['Instances'][0]}/file"))
        made, = (root / "results").glob("*/*.dcm")
        if back == "rest":
            assert (tmp_path / "back.dcm").read_bytes() == made.read_bytes()
        assert pydicom.dcmread(tmp_path / "back.dcm") == pydicom.dcmread(made)
        check_segmentation(tmp_path / "back.dcm", sample)
