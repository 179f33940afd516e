#!/bin/bash
# Whole cases on this machine's GPU, start of the program to mask, by stage: a synthetic CT of 512x512x400 voxels with a
# SegMambaSkip of random weights, patch 128^3; one tile alone; the same with too little of the GPU's memory; with `--only spread,own-25`
# a case's tiles on all GPUs.
#
#   bench/cuda_e2e.sh PACK OUT_FOLDER [OPTIONS of bench/cuda_e2e.py]      PACK: what scripts/pack-device.sh made
#
# Run in the repository root. Needs a Python with numpy, and with torch for the part with too little memory.
set -u
PACK=${1:?folder of scripts/pack-device.sh}; OUT=${2:?output folder}; shift 2
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
. scripts/device-libs.sh
device_libraries "$PACK"
exec python3 bench/cuda_e2e.py --program "$PACK/cli/voxmamba" --bench "$PACK/bench/voxmamba_bench" --out "$OUT" "$@"
