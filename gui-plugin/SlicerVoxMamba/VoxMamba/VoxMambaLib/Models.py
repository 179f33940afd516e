"""The models that are installed, as `voxmamba models --json` lists them."""
import json
import subprocess
from typing import List, NamedTuple, Optional, Tuple

_SECONDS = 60  # every model file is hashed: seconds for many large ones, from a slow disk


class Label(NamedTuple):
    value: int
    name: str
    rgb: Optional[Tuple[int, int, int]] = None  # None: the model names no colour


class Model(NamedTuple):
    name: str
    path: str
    version: str
    licence: str
    description: str
    modality: str
    channels: Tuple[str, ...]
    labels: Tuple[Label, ...]

    def refusal(self):
        """Why this model cannot be run from a window with one volume; "" if it can."""
        if len(self.channels) < 2:
            return ""
        return (f"The model {self.name} needs {len(self.channels)} volumes of one grid ({', '.join(self.channels)}): "
                "run it with the program, voxmamba segment --channel NAME=FILE")


class ModelsUnknown(Exception):
    """The list could not be had; the text says why."""


def parse(text):
    """The list of models in the JSON of `voxmamba models --json`, without files that are broken; members that are not known here are
    let pass."""
    return [Model(name=m["name"], path=m["path"], version=m.get("version", ""), licence=m.get("licence", ""),
                  description=m.get("description", ""), modality=m.get("modality", ""),
                  channels=tuple(m.get("channels", ())), labels=tuple(_label(each) for each in m["labels"]))
            for m in json.loads(text) if "error" not in m]


def list_models(program, environment):
    """Runs `program models --json` and waits for it (some 40 ms for a model of 28 MB). ModelsUnknown if that fails."""
    try:
        done = subprocess.run([program, "models", "--json"], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelsUnknown(f"{program} could not be run: {error}") from error
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise ModelsUnknown(said or f"{program} ended with {done.returncode}")
    try:
        models = parse(done.stdout.decode("utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelsUnknown(f"{program} gave no list of models: {error!r}") from error
    if not models:
        raise ModelsUnknown(said or "no model is installed: *.safetensors files belong into share/voxmamba/models of the "
                                    "extension, or into a folder that the environment variable VOXMAMBA_MODELS names")
    return models


def _label(entry):
    rgb = entry.get("rgb")
    return Label(value=entry["value"], name=entry["name"], rgb=tuple(rgb) if rgb else None)
