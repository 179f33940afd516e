"""DICOM SEG that cannot be written: one line, its code, and nothing is left."""
import os
import resource
import shutil
import subprocess
import sys

from oracle import np

try:
    import pytest
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from seg import WRITE, folder_of, some_labels, write_seg

INPUT, OUTPUT, CANCELLED = 2, 4, 7


def refused(tmp_path, code, *words, before=lambda: None, labels=None, command=(), limit=None):
    """Writes in.dcm's SEG; before() is called when the volume was read and nothing is written yet."""
    if not (tmp_path / "in").exists():
        folder_of(tmp_path / "in", np.eye(3))
    labels = some_labels((5, 7, 9)) if labels is None else labels
    out, pipe = tmp_path / "out", tmp_path / "labels"
    out.mkdir()
    os.mkfifo(pipe)

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # Python ignores SIGXFSZ, and so does what it starts here: a write beyond the limit is an error, as on a full disk.
    process = subprocess.Popen([WRITE, tmp_path / "in", pipe, out / "m.dcm", *command], stderr=subprocess.PIPE, text=True,
                               restore_signals=False, preexec_fn=None if limit is None else limit_files)
    with open(pipe, "wb") as file:  # opens when the other side does
        before()
        file.write(labels.astype(np.uint8).tobytes())
    said = process.communicate(timeout=200)[1].splitlines()
    assert process.returncode == code and len(said) == 1, (process.returncode, said)
    for word in words:
        assert word in said[0], said
    assert not list(out.iterdir())


def test_the_source_is_gone(tmp_path):
    refused(tmp_path, INPUT, "cannot be made", before=lambda: shutil.rmtree(tmp_path / "in"))


def test_the_source_is_another_one(tmp_path):
    def replace():
        shutil.rmtree(tmp_path / "in")
        folder_of(tmp_path / "in", np.eye(3))  # other UIDs under the same names
    refused(tmp_path, INPUT, "the input has changed since it was read", before=replace)


def test_the_source_was_damaged(tmp_path):
    def cut():
        for path in (tmp_path / "in").iterdir():
            path.write_bytes(path.read_bytes()[:400])
    refused(tmp_path, INPUT, "cannot be made", before=cut)


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_full_disk(tmp_path, share):
    """In the header, and among the last of the pixels: two files' new UIDs differ by a few characters."""
    folder_of(tmp_path / "in", np.eye(3))
    labels = some_labels((5, 7, 9))
    whole = write_seg(tmp_path, tmp_path / "in", labels)
    limit = int(share * (whole.stat().st_size - 40))
    (tmp_path / "labels").unlink()
    refused(tmp_path, OUTPUT, "cannot write the output", labels=labels, limit=limit)


def test_cancelled_in_the_middle(tmp_path):
    refused(tmp_path, CANCELLED, "cancelled", command=["cancel"])


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
