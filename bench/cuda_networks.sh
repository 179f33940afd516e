#!/bin/bash
# Verifies and times the CUDA backend's networks on this machine's GPU, beside PyTorch (docs/benchmarks.md).
#
#   bench/cuda_networks.sh PACK OUT_FOLDER [PEERS]    PACK: what scripts/pack-device.sh made; PEERS: a folder with
#                                                     mamba_ssm and causal_conv1d for PYTHONPATH
#
# Run in the repository root, with python3 the one that has torch and safetensors; about five minutes. From the environment:
#   NETWORKS="A B"   instead of all of them
#   WORK=FOLDER      for models, inputs and logits (some 3 GB), instead of a temporary one
set -u
PACK=$(readlink -f "${1:?folder of scripts/pack-device.sh}"); OUT=${2:?output folder}; PEERS=${3:-}
mkdir -p "$OUT"; OUT=$(readlink -f "$OUT"); JSON=$OUT/cuda_networks.jsonl; : > "$JSON"
NETWORKS=${NETWORKS:-PlainConvUNet SegMambaSkip PanSegMamba MultiSegMamba SegMamba U-MambaBot ResidualEncoderUNet-M}
[ -n "${WORK:-}" ] || { WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT; }
LOCK=$WORK/lock
export XDG_CACHE_HOME=$WORK/cache VOXMAMBA_TEST_SOURCE=$PWD
mkdir -p "$XDG_CACHE_HOME"
ours() { LD_LIBRARY_PATH=$PACK/libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout "$@"; }
torch() { PYTHONPATH=$PEERS timeout "$@"; }
alone() { (flock 9; "$@") 9> "$LOCK"; }
say() { echo "== $SECONDS s: $*"; }
ROOT=$PWD

main() {
  local n pids=() precisions
  nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
  # Models are made side by side, and PyTorch compiles meanwhile; what is timed holds the lock.
  for n in $NETWORKS; do
    (ours 120 "$PACK/bench/voxmamba_cuda_bench" $n --patch 32,32,32 --runs 1 --model "$WORK/$n.safetensors" > "$OUT/make_$n.log" 2>&1 ||
      tail -1 "$OUT/make_$n.log") & pids+=($!)
  done
  ours 60 "$PACK/cuda/cuda_test_conv_tiled" > "$OUT/conv_tiled.log" 2>&1; say "cuda_test_conv_tiled: exit $?"
  ours 100 "$PACK/tests/cuda/cuda_ops" > "$OUT/ops.log" 2>&1; say "cuda_ops: exit $?"
  ours 100 "$PACK/tests/cuda/cuda_networks" > "$OUT/networks.log" 2>&1; say "cuda_networks: exit $?"
  wait "${pids[@]}"; pids=()
  for n in $NETWORKS; do
    [[ $n == PlainConvUNet || $n == ResidualEncoderUNet-M ]] || continue
    (cd "$OUT"; torch 200 python3 "$ROOT/bench/peers/cuda_torch.py" "$WORK" $n --compiled --lock "$LOCK" --json "$JSON" 2>&1 | tail -1) & pids+=($!)
  done
  alone ours 60 "$PACK/bench/voxmamba_cuda_conv" fp16 "$JSON" | tee "$OUT/conv.log"
  say convolutions
  for n in $NETWORKS; do
    precisions=fp16,bf16; [ $n = PlainConvUNet ] && precisions=fp16,bf16,fp32
    alone ours 60 "$PACK/bench/voxmamba_cuda_bench" $n --precision $precisions --steps --model "$WORK/$n.safetensors" \
      --save "$WORK/$n" --json "$JSON" > "$OUT/$n.log" 2>&1 || tail -1 "$OUT/$n.log"
    grep -v launches "$OUT/$n.log"
  done
  say ours
  torch 200 python3 bench/peers/cuda_torch.py "$WORK" $NETWORKS --precision fp16,bf16 --lock "$LOCK" --json "$JSON" 2>&1 | tail -40
  say eager
  wait "${pids[@]}"
  say end
}
main 2>&1 | tee "$OUT/log.txt"
