#!/usr/bin/env python3
"""`voxmamba segment` beside nnU-Net v2 on the CPU: the same volume, the same weights, the same windows, no mirroring.

Called by nnunet.sh. Needs nnunetv2 (2.8.1) with its torch. A PlainConvUNet is made by nnU-Net itself with seeded
random weights; they go into an nnU-Net results folder and into a model file. Both programs then run as their users
run them, each from its command line in processes of its own:

- nnU-Net: nnUNetv2_predict_from_modelfolder -device cpu --disable_tta -npp 1 -nps 1; if asked for, its
  predict_from_files_sequential too (one process, less memory), also with a float32 accumulator
- ours: voxmamba segment

Time is that of the whole command. Memory is the largest sum, over the command's processes, of the proportional set
size (shared pages count once), sampled five times a second; for ours VmHWM stands beside it. The masks must agree but for
voxels where nnU-Net, which accumulates in half precision, rounds the other way.
"""

import argparse
import datetime
import gzip
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIMS, SPACING = (512, 512, 200), (0.75, 0.75, 1.5)  # x, y, z
CLASSES, PATCH, TARGET = 25, (128, 128, 128), (1.5, 1.5, 1.5)  # z, y, x
FEATURES, SEED = (16, 32, 64, 128, 256), 7
DISAGREE = 2e-3  # share of voxels that may differ


# ---------------------------------------------------------------------------------------------- the model, twice
def network_settings(features):
    stages = len(features)
    return {"n_stages": stages, "features_per_stage": list(features), "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages, "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True}}


def plans(features):
    resample = "resample_data_or_seg_to_shape"
    smooth = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "random", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "batch_dice": False,
        "patch_size": list(PATCH), "median_image_size_in_voxels": [200, 256, 256], "spacing": list(TARGET),
        "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": resample, "resampling_fn_data_kwargs": smooth,
        "resampling_fn_seg": resample, "resampling_fn_seg_kwargs": smooth | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": resample, "resampling_fn_probabilities_kwargs": smooth | {"order": 1},
        "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                         "arch_kwargs": network_settings(features),
                         "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}}
    return {"dataset_name": "Dataset001_Random", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
            "original_median_spacing_after_transp": list(SPACING[::-1]),
            "original_median_shape_after_transp": list(DIMS[::-1]), "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2], "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager", "configurations": {"3d_fullres": configuration},
            "foreground_intensity_properties_per_channel": {
                "0": {"max": 1000, "mean": 0, "median": 0, "min": -1000, "percentile_00_5": -900,
                      "percentile_99_5": 900, "std": 100}}}


def recipe(features):
    settings = network_settings(features)
    return {"format": 1, "name": "random-plain", "version": "1.0.0", "licence": "CC0-1.0", "modality": "CT",
            "description": "random weights for benchmarks", "provenance": {"data": "none"},
            "channels": [{"name": "image", "normalisation": {"kind": "zscore"}}],
            "labels": [{"value": k, "name": f"label {k}", "rgb": [9 * k, 99, 9]} for k in range(1, CLASSES)],
            "orientation": "as-stored", "crop": "nonzero", "spacing_zyx_mm": list(TARGET), "patch_zyx": list(PATCH),
            "resampling": {"image_order": 3, "logits_order": 1, "separate_axis": "auto", "separate_axis_order": 0},
            "mirror_axes": [], "postprocess": {"keep_largest": [], "remove_small_mm3": 0},
            "network": {"shell": "plain", "in_channels": 1, "classes": CLASSES, "features": list(features),
                        "kernels_zyx": settings["kernel_sizes"], "strides_zyx": settings["strides"],
                        "encoder_blocks": settings["n_conv_per_stage"],
                        "decoder_blocks": settings["n_conv_per_stage_decoder"], "mamba": {"family": "none"}}}


def make(work, features):
    """work/results: what nnU-Net's training would have left; work/model.safetensors: ours."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    sys.path.insert(0, str(ROOT / "models" / "reference"))
    import export
    import nets

    plan = plans(features)
    architecture = plan["configurations"]["3d_fullres"]["architecture"]
    torch.manual_seed(SEED)
    network = get_network_from_plans(architecture["network_class_name"], architecture["arch_kwargs"],
                                     architecture["_kw_requires_import"], 1, CLASSES, deep_supervision=False)
    state = network.state_dict()
    folder = work / "results" / "fold_0"
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"background": 0} | {f"label {k}": k for k in range(1, CLASSES)}
    (folder.parent / "plans.json").write_text(json.dumps(plan, indent=1))
    (folder.parent / "dataset.json").write_text(json.dumps(
        {"channel_names": {"0": "image"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}, indent=1))
    torch.save({"network_weights": state, "trainer_name": "nnUNetTrainer", "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": None}, folder / "checkpoint_final.pth")
    value = recipe(features)
    own = nets.build(value["network"]).state_dict()
    export.write_model(work / "model.safetensors", {k: v for k, v in state.items() if k in own}, value, "fp32")


def predict_sequentially(engine, results, images, out, threads):
    """nnU-Net in this process alone; engine "float32": with its accumulator and weights in that type."""
    import functools

    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    if engine == "float32":
        torch.half = torch.float32  # what the predictor names when it allocates
        gaussian = module.compute_gaussian
        module.compute_gaussian = functools.lru_cache(functools.partial(gaussian, dtype=torch.float32))
    torch.set_num_threads(threads)
    predictor = module.nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(results, (0,))
    Path(out).mkdir(exist_ok=True)
    predictor.predict_from_files_sequential(images, out)


# ---------------------------------------------------------------------------------------------- measuring
class Sampler(threading.Thread):
    """The largest sum of proportional set sizes of a session's processes."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.peak, self.done = session, 0, threading.Event()

    def total(self):
        sum_kb = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.session:
                    rollup = (stat.parent / "smaps_rollup").read_text()
                    sum_kb += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1))
            except (OSError, AttributeError):
                continue  # it ended meanwhile
        return 1024 * sum_kb

    def run(self):
        while not self.done.wait(0.2):
            self.peak = max(self.peak, self.total())


def measure(engine, command, environment):
    start = time.monotonic()
    process = subprocess.Popen([str(c) for c in command], env=environment, start_new_session=True)
    sampler = Sampler(process.pid)
    sampler.start()
    code = process.wait()
    seconds = time.monotonic() - start
    sampler.done.set()
    sampler.join()
    if code:
        raise SystemExit(f"nnunet_predict.py: {engine} ended with {code}")
    return {"engine": engine, "seconds": seconds, "pss_peak_bytes": sampler.peak}


def read_mask(path):
    """uint8 voxels of a .nii.gz mask of either program."""
    import numpy as np

    raw = gzip.decompress(Path(path).read_bytes())
    header = np.frombuffer(raw, "<i2", 1, 70)[0], int(np.frombuffer(raw, "<f4", 1, 108)[0])
    return np.frombuffer(raw, {2: "u1", 4: "<i2", 512: "<u2"}[int(header[0])], offset=header[1])


def compare(mine, theirs):
    import numpy as np

    a, b = read_mask(mine), read_mask(theirs)
    differ = float(np.mean(a != b))
    if a.size != b.size or differ > DISAGREE:
        raise SystemExit(f"nnunet_predict.py: the masks differ in {100 * differ:.3f} % of the voxels")
    return {"disagree": differ, "labels": int(np.unique(a).size)}


def run_all(args):
    """Yields a row for each engine."""
    work, threads = Path(args.work).resolve(), args.threads
    images = work / "images"
    images.mkdir(parents=True, exist_ok=True)
    volume = images / "case_0000.nii.gz"
    if not volume.exists():
        subprocess.run([sys.executable, HERE.parent / "synthetic_volume.py", volume, "--dims", ",".join(map(str, DIMS)),
                        "--spacing", ",".join(map(str, SPACING))], check=True)
    make(work, args.features)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "nnUNet_def_n_proc": str(threads)}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        environment[name] = str(work)
    results = work / "results"
    for engine in args.engines.split(","):
        out = work / engine
        if engine == "voxmamba":
            report = work / "report.json"
            row = measure(engine, [args.program, "segment", volume, "-m", work / "model.safetensors", "-o",
                                   work / "ours.nii.gz", "--overwrite", "--report", report, "--quiet", "--threads",
                                   threads], environment)
            case = json.loads(report.read_text())["cases"][0]
            row |= {"stages_s": case["times_s"], "hwm_bytes": case["peak_memory_bytes"]}
        elif engine == "nnunet":
            command = Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder"
            row = measure(engine, [command, "-i", images, "-o", out, "-m", results, "-f", "0", "-device", "cpu",
                                   "--disable_tta", "-npp", "1", "-nps", "1", "--disable_progress_bar"], environment)
        else:
            row = measure(engine, [sys.executable, __file__, engine, results, images, out, threads], environment)
        if engine != "voxmamba":
            row |= compare(work / "ours.nii.gz", out / "case.nii.gz")
        yield row


# ---------------------------------------------------------------------------------------------- the report
NAMES = {"voxmamba": "VoxMamba, `segment`", "nnunet": "nnU-Net, its command (-npp 1 -nps 1)",
         "sequential": "nnU-Net, one process", "float32": "nnU-Net, one process, accumulating in float32"}


def table(result):
    rows = result["rows"]
    ours = next(r for r in rows if r["engine"] == "voxmamba")
    yield f"# Beside nnU-Net v2, {result['date']}"
    yield ""
    yield (f"{result['processor']}, {result['threads']} threads; nnunetv2 {result['nnunetv2']}, PyTorch {result['torch']}; "
           f"commit {result['commit']}{' with local changes' if result['changed'] else ''}; load "
           f"{result['load_before']:.2f} before, {result['load_after']:.2f} after. Command: `{result['command']}`.")
    yield ""
    yield (f"One volume of {'x'.join(map(str, DIMS))} voxels of {'x'.join(map(str, SPACING))} mm (.nii.gz); PlainConvUNet, "
           f"features {', '.join(map(str, result['features']))}, two convolutions a stage, {CLASSES} classes, at "
           f"{TARGET[0]} mm; patch {'x'.join(map(str, PATCH))}, step 0.5, no mirroring, fp32. Whole commands.")
    yield ""
    yield "| | s | peak memory, GB | time / ours | memory / ours | voxels that differ from ours |"
    yield "|---|---|---|---|---|---|"
    for r in rows:
        differ = f"{100 * r['disagree']:.4f} %" if "disagree" in r else ""
        yield (f"| {NAMES[r['engine']]} | {r['seconds']:.1f} | {r['pss_peak_bytes'] / 1e9:.2f} | "
               f"{r['seconds'] / ours['seconds']:.2f} | {r['pss_peak_bytes'] / ours['pss_peak_bytes']:.2f} | {differ} |")
    yield ""
    stages = ", ".join(f"{k} {v:.1f}" for k, v in ours["stages_s"].items())
    yield f"Ours by stage, s: {stages}. VmHWM {ours['hwm_bytes'] / 1e9:.2f} GB."


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def main():
    if sys.argv[1:2] in (["sequential"], ["float32"]):
        predict_sequentially(*sys.argv[1:5], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="voxmamba")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--features", default=FEATURES, type=lambda t: tuple(int(n) for n in t.split(",")))
    parser.add_argument("--engines", default="voxmamba,nnunet")
    parser.add_argument("--work", default=str(ROOT / "build" / "bench-work" / "nnunet"))
    parser.add_argument("--out", required=True, help="results: OUT.json and OUT.md")
    args = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    for row in run_all(args):
        rows.append(row)
        print(row, flush=True)
        write(args, load, rows)


def write(args, load, rows):
    from importlib.metadata import version

    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    result = {"format": 1, "date": datetime.date.today().isoformat(), "commit": git("rev-parse", "--short", "HEAD"),
              "changed": bool(git("status", "--porcelain", "--untracked-files=no", "--", "src")),
              "command": f"bench/nnunet.sh --threads {args.threads} --features {','.join(map(str, args.features))} "
                         f"--engines {args.engines}",
              "processor": found.group(1) if found else platform.machine(), "threads": args.threads,
              "nnunetv2": version("nnunetv2"), "torch": version("torch"), "features": args.features,
              "load_before": load, "load_after": os.getloadavg()[0], "rows": rows}
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text("\n".join(table(result)) + "\n")


if __name__ == "__main__":
    main()
