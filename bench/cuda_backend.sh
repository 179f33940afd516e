#!/bin/bash
# Verifies the CUDA backend on this machine's GPU: every op against the scalar reference, the golden
# networks, and one case through the program against the CPU's mask, each precision twice.
#
#   bench/cuda_backend.sh PACK OUT_FOLDER      PACK: what scripts/pack-device.sh made
#
# Run in the repository root; minutes. SANITIZE=1 adds compute-sanitizer on the op tests.
set -u
PACK=${1:?folder of scripts/pack-device.sh}; OUT=${2:?output folder}
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader

. scripts/device-libs.sh
device_libraries "$PACK"
export VOXMAMBA_TEST_SOURCE=$PWD

failed=0
check() { # name seconds command...
  local name=$1 limit=$2 start=$SECONDS; shift 2
  timeout "$limit" "$@" > "$OUT/$name.log" 2>&1; local code=$?
  echo "$name: exit $code, $((SECONDS - start)) s"
  [ $code = 0 ] && return
  failed=1
  grep -E "FAILED|ERROR|relative L2|other bits|CUDA|cuDNN|cuBLASLt" "$OUT/$name.log" | head -20
  tail -3 "$OUT/$name.log"
}
check scan 60 "$PACK/cuda/cuda_test_scan" --few
for op in conv_tiled mamba_in mamba_out; do check $op 60 "$PACK/cuda/cuda_test_$op" --few; done
check ops 100 "$PACK/tests/cuda/cuda_ops"
check networks 60 "$PACK/tests/cuda/cuda_networks"
check sessions 60 "$PACK/tests/cuda/cuda_sessions"
check sweep 60 "$PACK/tests/cuda/cuda_sweep"

case=sample-data/hippocampus_380.nii.gz
export XDG_CACHE_HOME=$OUT/cache
mkdir -p "$XDG_CACHE_HOME"
segment() { # mask options...
  local mask=$1; shift
  check "$mask" 40 "$PACK/cli/voxmamba" segment $case -m models/hippocampus.safetensors -o "$OUT/$mask.nii.gz" --overwrite "$@"
}
segment cpu --device cpu
for p in fp32 fp16 bf16; do
  segment "$p-1" --device cuda --precision $p
  segment "$p-2" --device cuda --precision $p
  cmp "$OUT/$p-1.nii.gz" "$OUT/$p-2.nii.gz" || failed=1
  "$PACK/cli/voxmamba" evaluate "$OUT/$p-1.nii.gz" "$OUT/cpu.nii.gz" || failed=1
done

# --device auto takes the GPU in fp16; without the module beside the program it says so in one line
# and takes the CPU.
segment auto -v
grep -q "device: NVIDIA.*, fp16" "$OUT/auto.log" || { echo "auto did not take the GPU"; failed=1; }
cmp "$OUT/auto.nii.gz" "$OUT/fp16-1.nii.gz" || failed=1
mkdir -p "$OUT/alone" && cp "$PACK/cli/voxmamba" "$OUT/alone/"
check alone 40 "$OUT/alone/voxmamba" segment $case -m models/hippocampus.safetensors -o "$OUT/alone.nii.gz" --overwrite
grep -c "^voxmamba: warning: computing on the CPU: .* is not installed" "$OUT/alone.log" | grep -qx 1 ||
  { echo "auto did not say that the module is missing"; failed=1; }
cmp "$OUT/alone.nii.gz" "$OUT/cpu.nii.gz" || failed=1

if [ -n "${SANITIZE:-}" ]; then
  for tool in memcheck racecheck initcheck; do
    check "sanitizer-$tool" 300 compute-sanitizer --tool $tool --error-exitcode 1 "$PACK/tests/cuda/cuda_ops"
  done
fi
[ $failed = 0 ] && echo "all passed"
exit $failed
