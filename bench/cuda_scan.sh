#!/bin/bash
# Builds, tests, times and profiles the CUDA scan on this machine's GPU, for bench/results/.
#
#   bench/cuda_scan.sh OUT_FOLDER [ARCH]      ARCH: sm_90 by default
#
# Run in the repository root. BIN=FOLDER keeps the programs there, and takes those that are there
# already instead of building them. PEERS=FOLDER also times mamba_ssm from that folder. The most
# important things come first; after LIMIT seconds (170) it ends, with what there is. The log is
# OUT_FOLDER/log.txt. Variants are compile-time constants of cuda/scan*.cu*.
set -u
OUT=${1:?output folder}; ARCH=${2:-sm_90}; LIMIT=${LIMIT:-170}
NVCC=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
FLAGS="-O3 -std=c++17 -arch=$ARCH -lineinfo -I src -I ."
VARIANTS="base: chunk128:-DVX_SCAN_MIN_CHUNK=128 chunk256:-DVX_SCAN_MIN_CHUNK=256"
SCRATCH=$(mktemp -d); trap 'rm -rf "$SCRATCH"' EXIT
BIN=${BIN:-$SCRATCH/bin}
mkdir -p "$OUT" "$BIN"; JSON=$OUT/cuda_scan.jsonl; : > "$JSON"

say() { echo "== $SECONDS s: $*"; }
# at_most SECONDS COMMAND...: no longer than that, nor than what is left in all.
at_most() {
  local s=$(( LIMIT - SECONDS )); (( $1 < s )) && s=$1; shift
  (( s > 0 )) || { echo "no time left for: ${*##*/}"; return 124; }
  timeout -k 2 "$s" "$@"
}

build_variant() { # name flags
  at_most 160 $NVCC $FLAGS ${2//,/ } -c cuda/scan.cu -o "$SCRATCH/scan_$1.o" &&
    at_most 60 $NVCC $FLAGS "$SCRATCH"/{bench,status,fit}.o "$SCRATCH/scan_$1.o" -o "$BIN/bench_$1" &&
    at_most 60 $NVCC $FLAGS "$SCRATCH"/{test,status,fit}.o "$SCRATCH/scan_$1.o" -o "$BIN/test_$1"
}
build() {
  local pids=() v include
  include=$(dirname "$NVCC")/../include
  gcc -c -O2 -I src src/base/status.c -o "$SCRATCH/status.o" || return 1
  gcc -c -O2 -std=c11 -I src -I . -I "$include" cuda/scan_fit.c -o "$SCRATCH/fit.o" || return 1
  at_most 100 $NVCC $FLAGS -c bench/cuda_scan.cu -o "$SCRATCH/bench.o" & pids+=($!)
  at_most 100 $NVCC $FLAGS -c cuda/tests/test_scan.cu -o "$SCRATCH/test.o" & pids+=($!)
  at_most 100 $NVCC $FLAGS bench/cuda_probe.cu -o "$BIN/probe" & pids+=($!)
  wait "${pids[@]}"; pids=()
  for v in $VARIANTS; do build_variant "${v%%:*}" "${v#*:}" & pids+=($!); done
  wait "${pids[@]}"
}

# What limits each pass: instructions, units, stalls, resident warps.
STALL=smsp__average_warps_issue_stalled
METRICS=gpu__time_duration.sum,smsp__inst_executed.sum,dram__bytes.sum
for m in sm__inst_executed_pipe_xu sm__inst_executed_pipe_fma sm__warps_active smsp__issue_active; do
  METRICS+=,$m.avg.pct_of_peak_sustained_active
done
METRICS+=,l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed
METRICS+=,launch__registers_per_thread,launch__occupancy_limit_shared_mem
for m in barrier long_scoreboard short_scoreboard mio_throttle math_pipe_throttle wait; do
  METRICS+=,${STALL}_${m}_per_issue_active.ratio
done
profile() { # L D N directions type
  local name="$*"; name=$OUT/ncu_${name// /_}.txt
  at_most 25 ncu --clock-control none --kernel-name regex:scan_ --launch-skip 3 --launch-count 3 \
    --metrics "$METRICS" "$BIN/bench_base" --once "$@" > "$name" 2>&1
}

main() {
  local v shape
  [ -x "$BIN/test_base" ] || build
  say built
  at_most 10 nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
  at_most 40 "$BIN/test_base"; echo "test: exit $?"
  at_most 30 compute-sanitizer --tool memcheck "$BIN/test_base" --few 2>&1 | tail -6
  say memcheck
  at_most 10 "$BIN/probe" | tee -a "$JSON"
  at_most 40 "$BIN/bench_base" --name settled --json "$JSON"
  at_most 20 "$BIN/bench_base" --name exact --exact --json "$JSON" --quick
  at_most 20 "$BIN/bench_base" --name fitted --fitted --json "$JSON" --quick
  say bench
  for v in $VARIANTS; do
    v=${v%%:*}; [ "$v" = base ] && continue
    at_most 15 "$BIN/bench_$v" --name "$v" --json "$JSON" --quick
  done
  say variants
  for shape in "2097152 64 16 1 1" "2097152 64 32 1 1" "262144 128 64 1 1"; do profile $shape; done
  say profiled
  at_most 30 "$BIN/test_base" --large | tail -2
  at_most 90 compute-sanitizer --tool racecheck "$BIN/test_base" --few 2>&1 | tail -6
  say racecheck
  [ -n "${PEERS:-}" ] &&
    PYTHONPATH=$PEERS at_most 90 python3 bench/peers/scan_peers.py --json "$JSON"
  say end
}
main 2>&1 | tee "$OUT/log.txt"
