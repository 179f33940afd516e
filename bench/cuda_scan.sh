#!/bin/bash
# Builds, tests, times and profiles the CUDA scan on this machine's GPU, for bench/results/.
#
#   bench/cuda_scan.sh OUT_FOLDER [ARCH]      ARCH: sm_90 by default
#
# PEERS=FOLDER also times mamba_ssm from that folder. Run in the repository root; takes about two
# minutes. Variants are compile-time constants of cuda/scan.cu.
set -u
OUT=${1:?output folder}; ARCH=${2:-sm_90}
NVCC=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
BUILD=$(mktemp -d); trap 'rm -rf "$BUILD"' EXIT
mkdir -p "$OUT"; JSON=$OUT/cuda_scan.jsonl; : > "$JSON"
FLAGS="-O3 -std=c++17 -arch=$ARCH -lineinfo -I src -I ."
variants="base: w4k:-DVX_SCAN_WARPS=4096 w12k:-DVX_SCAN_WARPS=12288 w16k:-DVX_SCAN_WARPS=16384
  b2:-DVX_SCAN_BLOCKS=2 b4:-DVX_SCAN_BLOCKS=4"

gcc -c -O2 -I src src/base/status.c -o "$BUILD/status.o" || exit 1
build() { # name flags
  $NVCC $FLAGS $2 -c cuda/scan.cu -o "$BUILD/scan_$1.o" &&
    $NVCC $FLAGS bench/cuda_scan.cu "$BUILD/scan_$1.o" "$BUILD/status.o" -o "$BUILD/bench_$1"
}
$NVCC $FLAGS bench/cuda_probe.cu -o "$BUILD/probe" &
for v in $variants; do build "${v%%:*}" "${v#*:}" & done
wait
$NVCC $FLAGS cuda/tests/test_scan.cu "$BUILD/scan_base.o" "$BUILD/status.o" -o "$BUILD/test_scan" || exit 1

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
"$BUILD/probe" | tee -a "$JSON"
timeout 120 "$BUILD/test_scan" --large; echo "test: exit $?"
timeout 120 "$BUILD/bench_base" --name base --json "$JSON"
for v in $variants; do timeout 30 "$BUILD/bench_${v%%:*}" --name "${v%%:*}" --json "$JSON" --quick; done
if [ -n "${PEERS:-}" ]; then
  PYTHONPATH=$PEERS timeout 90 python3 bench/peers/scan_peers.py --json "$JSON"
fi

# What limits each pass: instructions, units, stalls, resident warps.
NCU=$(command -v ncu) && for shape in "2097152 64 16 1 1" "262144 128 64 1 1"; do
  timeout 60 "$NCU" --clock-control none --kernel-name regex:scan_ --launch-skip 3 --launch-count 3 \
    --metrics gpu__time_duration.sum,smsp__inst_executed.sum,smsp__issue_active.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active,launch__occupancy_limit_shared_mem,launch__occupancy_limit_registers,launch__shared_mem_config_size,dram__bytes.sum,l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed,smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio,smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio,smsp__average_warps_issue_stalled_wait_per_issue_active.ratio,smsp__average_warps_issue_stalled_not_selected_per_issue_active.ratio,smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio \
    "$BUILD/bench_base" --once $shape | grep -E "^ "
done
for tool in memcheck racecheck initcheck; do
  command -v compute-sanitizer > /dev/null &&
    timeout 120 compute-sanitizer --tool $tool "$BUILD/test_scan" --few 2>&1 | tail -2
done
