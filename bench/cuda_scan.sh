#!/bin/bash
# Builds, tests, times and profiles the CUDA scan on this machine's GPU, for bench/results/.
#
#   bench/cuda_scan.sh OUT_FOLDER [ARCH]      ARCH: sm_90 by default
#
# PEERS=FOLDER also times mamba_ssm from that folder. Run in the repository root; takes about four
# minutes. Variants are compile-time constants of cuda/scan*.cu*; the log is OUT_FOLDER/log.txt.
set -u
OUT=${1:?output folder}; ARCH=${2:-sm_90}
NVCC=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
BUILD=$(mktemp -d); trap 'rm -rf "$BUILD"' EXIT
mkdir -p "$OUT"; JSON=$OUT/cuda_scan.jsonl; : > "$JSON"
exec > >(tee "$OUT/log.txt") 2>&1
say() { echo "== $SECONDS s: $*"; }
FLAGS="-O3 -std=c++17 -arch=$ARCH -lineinfo -I src -I ."
variants="base: tile16:-DVX_SCAN_TILE=16 tanh:-DVX_SCAN_TANH=1
  tile16_tanh:-DVX_SCAN_TILE=16,-DVX_SCAN_TANH=1 unroll2:-DVX_SCAN_UNROLL=2
  unroll8:-DVX_SCAN_UNROLL=8
  b2:-DVX_SCAN_BLOCKS=2,-DVX_SCAN_BLOCKS_32=1 pairs6:-DVX_SCAN_PAIRS_32=6
  w4k:-DVX_SCAN_WARPS=4096 w12k:-DVX_SCAN_WARPS=12288 w16k:-DVX_SCAN_WARPS=16384"

gcc -c -O2 -I src src/base/status.c -o "$BUILD/status.o" &&
  gcc -c -O2 -std=c11 -I src -I . -I "$(dirname "$NVCC")/../include" cuda/scan_fit.c \
    -o "$BUILD/fit.o" || exit 1
build() { # name flags
  $NVCC $FLAGS ${2//,/ } -c cuda/scan.cu -o "$BUILD/scan_$1.o" &&
    $NVCC $FLAGS "$BUILD"/{bench,status,fit}.o "$BUILD/scan_$1.o" -o "$BUILD/bench_$1" &&
    $NVCC $FLAGS "$BUILD"/{test,status,fit}.o "$BUILD/scan_$1.o" -o "$BUILD/test_$1"
}
$NVCC $FLAGS -c bench/cuda_scan.cu -o "$BUILD/bench.o" &
$NVCC $FLAGS -c cuda/tests/test_scan.cu -o "$BUILD/test.o" &
$NVCC $FLAGS bench/cuda_probe.cu -o "$BUILD/probe" &
wait
for v in $variants; do build "${v%%:*}" "${v#*:}" & done
wait
say built

nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
timeout 60 "$BUILD/test_base" --few; echo "test --few: exit $?"
timeout 60 compute-sanitizer --tool memcheck "$BUILD/test_base" --few 2>&1 | tail -12
say memcheck
"$BUILD/probe" | tee -a "$JSON"
timeout 90 "$BUILD/test_base" --large; echo "test --large: exit $?"
say test
timeout 60 "$BUILD/bench_base" --name base --json "$JSON"
timeout 30 "$BUILD/bench_base" --name exact --exact --json "$JSON" --quick
say bench

# What limits each pass: instructions, units, stalls, resident warps.
METRICS=gpu__time_duration.sum,smsp__inst_executed.sum,smsp__issue_active.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active,launch__occupancy_limit_shared_mem,launch__occupancy_limit_registers,launch__shared_mem_config_size,dram__bytes.sum,l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed,smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio,smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio,smsp__average_warps_issue_stalled_wait_per_issue_active.ratio,smsp__average_warps_issue_stalled_not_selected_per_issue_active.ratio,smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio
MORE=sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active,launch__registers_per_thread,launch__grid_size,launch__block_size,launch__shared_mem_per_block_dynamic,smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio,smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio,smsp__average_warps_issue_stalled_dispatch_stall_per_issue_active.ratio,smsp__average_warps_issue_stalled_no_instruction_per_issue_active.ratio
profile() { # binary options, L D N directions type
  local metrics
  for metrics in "$METRICS,$MORE" "$METRICS"; do # the second where a name is unknown
    timeout 60 ncu --clock-control none --kernel-name regex:scan_ --launch-skip 3 \
      --launch-count 3 --metrics "$metrics" "$BUILD/$1" $2 --once $3 2>&1 | grep -E "^ |rror" |
      tee "$BUILD/ncu" | grep -q time_duration && break
  done
  cat "$BUILD/ncu"
}
for shape in "2097152 64 16 1 1" "2097152 64 32 1 1" "262144 128 64 1 1" "4096 512 256 2 1"; do
  profile bench_base "" "$shape" > "$OUT/ncu_base_${shape// /_}.txt"
done
profile bench_base --exact "2097152 64 16 1 1" > "$OUT/ncu_exact_16.txt"
profile bench_tile16_tanh "" "2097152 64 16 1 1" > "$OUT/ncu_tile16_tanh_16.txt"
grep -hE "scan_|time_duration|inst_executed.sum|issue_active|pipe_xu|warps_active" "$OUT"/ncu_*.txt
say profiled

for v in $variants; do
  v=${v%%:*}; [ "$v" = base ] && continue
  timeout 30 "$BUILD/test_$v" --few | tail -1
  timeout 30 "$BUILD/bench_$v" --name "$v" --json "$JSON" --quick
done
timeout 30 "$BUILD/bench_base" --name base_again --json "$JSON" --quick
say variants
for tool in racecheck initcheck; do
  timeout 60 compute-sanitizer --tool $tool "$BUILD/test_base" --few 2>&1 | tail -6
  say $tool
done
if [ -n "${PEERS:-}" ]; then
  PYTHONPATH=$PEERS timeout 90 python3 bench/peers/scan_peers.py --json "$JSON"
fi
