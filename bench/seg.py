#!/usr/bin/env python3
"""Writes a DICOM SEG of 100 segments and 30,000 frames of 512 x 512 (a label map whose 300 slices hold 100 labels each) and
prints seconds and memory as JSON.

The program is write_seg of the tests: it reads the series and writes the label map as the command line does, without a
network. Memory is the largest resident memory of the program and of its helper process, added up, though the two are
not the largest at one time. Beside the seconds of writing stand those that the disk takes for as many bytes. Needs numpy and
pydicom, and 2.3 GB of disk under --work.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dicom"))
from new_image import new_image, new_uids  # noqa: E402

SIZE, SLICES, LABELS = 512, 300, 100


def make_series(folder):
    folder.mkdir(parents=True)
    uids = new_uids()
    for k in range(SLICES):
        d = new_image(CTImageStorage, SIZE, SIZE, uids)
        d.Modality, d.PatientName, d.PatientID, d.ImageType = "CT", "Bench", "Bench", ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-190, -190, 1.5 * k]
        d.PixelSpacing, d.SliceThickness, d.RescaleSlope, d.RescaleIntercept = [0.75, 0.75], 1.5, 1, -1024
        d.PixelData = np.full((SIZE, SIZE), k, "<u2").tobytes()
        d.save_as(folder / f"{k}.dcm", enforce_file_format=True)


def largest(pid):
    """VmHWM in bytes; 0 when the process has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def watch(process, found):
    """Notes the largest memory of the process and of each of its children until it has ended."""
    while process.poll() is None:
        found["program"] = max(found["program"], largest(process.pid))
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        except OSError:
            children = []
        for child in children:
            found["helper"] = max(found["helper"], largest(child))
        time.sleep(0.005)


def write(program, series, labels, out):
    """The label map goes through a pipe, which the program opens when it has read the series."""
    pipe = out.with_suffix(".labels")
    os.mkfifo(pipe)
    found = {"program": 0, "helper": 0}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen([program, series, pipe, out])
    watcher = threading.Thread(target=watch, args=(process, found))
    watcher.start()
    with open(pipe, "wb") as file:
        read = time.perf_counter()
        file.write(labels)
    watcher.join()
    end = time.perf_counter()
    if process.returncode != 0:
        sys.exit(f"{program}: exit {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"read_seconds": round(read - begin, 2), "write_seconds": round(end - read, 2),
            "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            "program_bytes": found["program"], "helper_bytes": found["helper"],
            "both_bytes": found["program"] + found["helper"]}


def plain_seconds(path, size):
    """What the disk takes for as many bytes, written and flushed by nobody in particular."""
    piece = os.urandom(1 << 20)
    begin = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(-(-size // len(piece))):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    os.remove(path)
    return round(seconds, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/tests/write_seg")
    parser.add_argument("--work", default="build/bench-work/seg")
    parser.add_argument("--out", help="a file for the JSON, besides the terminal")
    args = parser.parse_args()
    work = Path(args.work)
    shutil.rmtree(work, ignore_errors=True)
    make_series(work / "series")
    labels = (np.arange(SLICES * SIZE * SIZE, dtype=np.uint32) % LABELS + 1).astype(np.uint8)
    result = {"date": datetime.date.today().isoformat(), "processors": os.cpu_count(), "machine": platform.machine(),
              "load": os.getloadavg()[0],
              "segments": LABELS, "frames": SLICES * LABELS, "rows": SIZE, "columns": SIZE}
    result.update(write(args.program, work / "series", labels.tobytes(), work / "out.dcm"))
    result["file_bytes"] = os.path.getsize(work / "out.dcm")
    result["plain_write_seconds"] = plain_seconds(work / "plain", result["file_bytes"])
    header = pydicom.dcmread(work / "out.dcm", stop_before_pixels=True)
    assert (len(header.SegmentSequence), header.NumberOfFrames) == (LABELS, SLICES * LABELS)
    shutil.rmtree(work)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        Path(args.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
