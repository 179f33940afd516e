"""Verbs, options, help; and that man page, completion and docs/cli.md know every option."""
import os
import re

import pytest
from conftest import ROOT, run

VERBS = ["segment", "info", "models", "evaluate"]


def test_version():
    result = run("--version")
    assert result.code == 0 and re.match(r"voxmamba \d+\.\d+\.\d+( \([0-9a-f]+\))?\n$", result.out)


def test_help_names_what_is_built():
    result = run("--help")
    assert result.code == 0 and result.err == ""
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", result.out, re.M)
    for verb in ("import", "export", "train", "bench"):
        assert not re.search(rf"^  {verb} ", result.out, re.M)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_verbs(verb):
    result = run(verb, "--help")
    assert result.code == 0 and result.err == "" and result.out.startswith(f"Usage: voxmamba {verb} ")
    assert max(map(len, result.out.splitlines())) <= 110


@pytest.mark.parametrize("typed, near", [("segmnet", "segment"), ("segemnt", "segment"), ("evalute", "evaluate"),
                                         ("modles", "models"), ("xyzzy", None), ("", None)])
def test_unknown_verb(typed, near):
    line = run(typed).error_line(1)
    assert typed in line and (near is None or f"did you mean {near}?" in line)


def test_no_verb():
    run().error_line(1)


@pytest.mark.parametrize("typed, near", [("--overwite", "--overwrite"), ("--ouput", "--output"), ("--thread=2x", None),
                                         ("--zzz", None), ("-z", None), ("--tta=yes", None)])
def test_unknown_option(typed, near, tmp_path):
    line = run("segment", "x.nii.gz", "-o", tmp_path / "o", typed).error_line(1)
    assert near is None or f"did you mean {near}?" in line


def test_missing_value_and_arguments(tmp_path):
    run("segment", "x.nii.gz", "-o").error_line(1)
    run("segment", "x.nii.gz", "--output").error_line(1)
    run("segment", "-o", tmp_path / "o").error_line(1)
    run("segment", "x.nii.gz").error_line(1)
    run("info").error_line(1)
    run("info", "a", "b").error_line(1)
    run("evaluate", "a").error_line(1)
    run("models", "a").error_line(1)
    run("segment", "x", "-o", "y", "--log-format", "xml").error_line(1)
    run("segment", "x", "-o", "y", "--s", "1").error_line(1)  # --step, --shard, ...


def test_gnu_forms(scan, model, tmp_path):
    for i, args in enumerate((["-o", "A", "-m", model], ["-oA", f"-m{model}"], ["--output=A", f"--model={model}"],
                              ["--outp", "A", "--mod", model, "-q"])):
        out = tmp_path / f"{i}.nii.gz"
        result = run("segment", *[a.replace("A", str(out)) if a != model else a for a in args], scan)
        assert result.code == 0 and out.exists(), result.err


def options(verb):
    text = run(verb, "--help").out
    return set(re.findall(r"^  (?:-.,|   ) (--[a-z-]+)", text, re.M))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("path", ["docs/cli.md", "docs/voxmamba.1", "docs/completion/voxmamba.bash"])
def test_documents_know_every_option(verb, path):
    text = open(os.path.join(ROOT, path)).read().replace("\\-", "-")
    known = options(verb)
    assert "--help" in known and len(known) >= 5
    missing = {o for o in known if not re.search(re.escape(o) + r"(?![a-z-])", text)}
    assert not missing
    assert verb in text


@pytest.mark.parametrize("path", ["docs/cli.md", "docs/voxmamba.1", "docs/completion/voxmamba.bash"])
def test_documents_name_no_other_option(path):
    text = open(os.path.join(ROOT, path)).read().replace("\\-", "-")
    known = set().union(*(options(v) for v in VERBS)) | {"--version"}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert not named - known
