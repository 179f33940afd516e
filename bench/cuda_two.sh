#!/bin/bash
# A batch of 16 synthetic volumes on one GPU and on all GPUs of this machine: the same masks, and
# the ratio of the wall times.
#
#   bench/cuda_two.sh PACK OUT_FOLDER      PACK: what scripts/pack-device.sh made
#
# Run in the repository root; needs python3 with numpy. From the environment: DIMS=128,128,128,
# CASES=16, PRECISION=fp16, VOLUMES=FOLDER (volumes made before).
set -u
PACK=${1:?folder of scripts/pack-device.sh}; OUT=${2:?output folder}
DIMS=${DIMS:-128,128,128}; CASES=${CASES:-16}; PRECISION=${PRECISION:-fp16}
mkdir -p "$OUT/cache"
export XDG_CACHE_HOME=$OUT/cache
. scripts/device-libs.sh
device_libraries "$PACK"

if [ -z "${VOLUMES:-}" ]; then
  VOLUMES=$OUT/volumes
  mkdir -p "$VOLUMES"
  for i in $(seq -w "$CASES"); do
    python3 bench/synthetic_volume.py "$VOLUMES/case$i.nii" --dims "$DIMS" --spacing 1,1,1 --seed $((10#$i)) &
  done
  wait
fi

batch() { # name input options...; sets seconds
  local name=$1 input=$2 start end; shift 2
  start=$(date +%s.%N)
  # --force: the model was trained on smaller crops; the work is the same whatever is in them.
  "$PACK/cli/voxmamba" segment "$input" -m models/hippocampus.safetensors -o "$OUT/$name/" --force \
    --overwrite --precision "$PRECISION" --report "$OUT/$name.report.json" "$@" > "$OUT/$name.log" 2>&1 ||
    { echo "$name: exit $?"; tail -3 "$OUT/$name.log"; exit 1; }
  end=$(date +%s.%N)
  seconds=$(awk -v a="$start" -v b="$end" 'BEGIN { printf "%.2f", b - a }')
  echo "$name: $seconds s"
}

# Engines are chosen once, before anything is timed.
mkdir -p "$OUT/warm" && cp "$VOLUMES/$(ls "$VOLUMES" | head -1)" "$OUT/warm/warm.nii"
batch warm "$OUT/warm/warm.nii" --device cuda
batch one "$VOLUMES" --device cuda; one=$seconds
batch all "$VOLUMES" --device cuda:all; all=$seconds

failed=0
for mask in "$OUT"/one/*.nii.gz; do cmp "$mask" "$OUT/all/$(basename "$mask")" || failed=1; done
grep -o '"devices":[[:space:]]*[0-9]*' "$OUT/all.report.json"
echo "$(ls "$OUT"/one/*.nii.gz | wc -l) masks, $([ $failed = 0 ] && echo the same bits || echo DIFFERENT);" \
  "one GPU ${one} s, all ${all} s, ratio $(awk -v a="$one" -v b="$all" 'BEGIN { printf "%.2f", a / b }')"
exit $failed
