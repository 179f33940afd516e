#!/bin/bash
# All cases of a folder on this machine's GPU in every precision, twice, against the CPU's masks:
# the worst and the mean Dice of each label, whether two runs give the same bits, and the time of
# the whole batch (the first run of a precision may have to choose convolution engines).
#
#   bench/cuda_fold3.sh PACK IMAGES OUT_FOLDER [LABELS]    PACK: what scripts/pack-device.sh made
#
# Run in the repository root. From the environment:
#   CPU=FOLDER   the CPU's masks, made before, instead of making them here
#   ARGS="..."   options of segment for all runs
# With LABELS the masks are also compared to those. Writes OUT_FOLDER/fold3.json beside the masks.
set -u
PACK=${1:?folder of scripts/pack-device.sh}; IMAGES=${2:?folder of cases}; OUT=${3:?output folder}
LABELS=${4:-}
mkdir -p "$OUT/cache"
export XDG_CACHE_HOME=$OUT/cache # no engine was chosen before
. scripts/device-libs.sh
device_libraries "$PACK"
failed=0

batch() { # name options...
  local name=$1 start end; shift
  start=$(date +%s.%N)
  "$PACK/cli/voxmamba" segment "$IMAGES" -m models/hippocampus.safetensors -o "$OUT/$name/" \
    --overwrite --report "$OUT/$name.report.json" "$@" ${ARGS:-} > "$OUT/$name.log" 2>&1 ||
    { echo "$name: exit $?"; tail -3 "$OUT/$name.log"; failed=1; }
  end=$(date +%s.%N)
  echo "$name $(awk -v a="$start" -v b="$end" 'BEGIN { printf "%.2f", b - a }')" >> "$OUT/times.txt"
}
score() { # name reference suffix
  "$PACK/cli/voxmamba" evaluate "$OUT/$1" "$2" --overlap-only --json > "$OUT/$1.$3.json" || failed=1
}

: > "$OUT/times.txt"
[ -n "${CPU:-}" ] || { batch cpu --device cpu; CPU=$OUT/cpu; }
for precision in fp32 fp16 bf16; do
  for run in 1 2; do batch "$precision-$run" --device cuda --precision $precision; done
  score "$precision-1" "$CPU" cpu
  [ -z "$LABELS" ] || score "$precision-1" "$LABELS" labels
done
[ -z "$LABELS" ] || [ ! -d "$OUT/cpu" ] || score cpu "$LABELS" labels
[ $failed = 0 ] || exit 1

python3 - "$OUT" "$CPU" <<'PYTHON' || failed=1
import filecmp, json, pathlib, sys

out, cpu = map(pathlib.Path, sys.argv[1:])
times = dict(line.split() for line in open(out / "times.txt"))
result = {"times_s": {k: float(v) for k, v in times.items()}, "precisions": {}}
steady = True

def dice_by_label(path):
    values = {}
    for case in json.load(open(path))["cases"]:
        for label in case["labels"]:
            values.setdefault(label["label"], []).append((label["dice"], case["name"]))
    return values

print(f"{'':6} {'label':>5} {'cases':>5} {'worst Dice':>10} {'mean':>8}  worst case; against the CPU's masks")
for precision in ("fp32", "fp16", "bf16"):
    one, two = out / f"{precision}-1", out / f"{precision}-2"
    masks = sorted(p.name for p in one.glob("*.nii.gz"))
    same = [m for m in masks if filecmp.cmp(one / m, two / m, shallow=False)]
    equal = [m for m in masks if filecmp.cmp(one / m, cpu / m, shallow=False)]
    steady &= bool(masks) and len(same) == len(masks)
    entry = {"masks": len(masks), "same_bits_twice": len(same), "equal_to_cpu": len(equal), "labels": {}}
    for label, values in dice_by_label(f"{one}.cpu.json").items():
        worst = min(values)
        mean = sum(v for v, _ in values) / len(values)
        entry["labels"][label] = {"worst": worst[0], "worst_case": worst[1], "mean": mean}
        print(f"{precision:6} {label:5} {len(values):5} {worst[0]:10.5f} {mean:8.5f}  {worst[1]}")
    print(f"{precision:6} {len(same)} of {len(masks)} masks the same in both runs, {len(equal)} equal to the CPU's; "
          f"batch {times[f'{precision}-1']} s, again {times[f'{precision}-2']} s")
    result["precisions"][precision] = entry
for path in sorted(out.glob("*.labels.json")):
    values = [v for label in dice_by_label(path).values() for v, _ in label]
    result.setdefault("mean_dice_to_labels", {})[path.name.split(".")[0]] = sum(values) / len(values)
if "cpu" in times:
    print(f"cpu    batch {times['cpu']} s")
for name, value in result.get("mean_dice_to_labels", {}).items():
    print(f"{name}: mean Dice to the labels {value:.5f}")
json.dump(result, open(out / "fold3.json", "w"), indent=1)
sys.exit(0 if steady else "two runs gave different masks")
PYTHON
exit $failed
