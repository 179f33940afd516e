"""scripts/slicer_view.py: the browser view answers over HTTP, needs nothing from elsewhere, and shows the case."""
import os
import re
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from mrml import ROOT, SAMPLE, segment

SCRIPT = os.path.join(ROOT, "scripts/slicer_view.py")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "mask.seg.nrrd"
    segment(SAMPLE, "-m", "hippocampus", "-o", path)
    return path


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.status == 200
        return answer.read().decode("utf-8", "replace")


def test_answers_over_http(result):
    server = subprocess.Popen([sys.executable, SCRIPT, SAMPLE, str(result), "--port", "0"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    try:
        address = next(line.strip() for line in server.stdout if line.startswith("http://"))
        assert address.startswith("http://127.0.0.1:")
        page = get(address)
        assert '<div id="app">' in page
        linked = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert linked and not [name for name in linked if "//" in name]
        for name in linked:
            if name.endswith((".js", ".css")):
                assert len(get(f"{address}/{name}")) > 100
    finally:
        server.kill()
        server.wait()


def test_shows_the_case(result):
    sys.path.insert(0, os.path.dirname(SCRIPT))
    from slicer_picture import picture_of
    from slicer_view import CaseView
    case = CaseView(SAMPLE, result)
    assert case.segmentation.GetSegmentation().GetNumberOfSegments() == 2
    for name in [*case.server.state.trame__scripts, *case.server.state.trame__styles]:
        assert "//" not in str(name), name
    views = case.slicer.view_manager.get_views()
    assert len(views) == 4
    for view in views:
        view.update_size(300, 240)
        view.reset_view()
        pixels = np.asarray(picture_of(view)).astype(int)
        assert pixels.std() > 20
        assert (pixels.max(axis=2) - pixels.min(axis=2) > 60).mean() > 0.01  # the segments' colours
