#!/bin/bash
# Builds, tests, times and profiles the CUDA kernels on this machine's GPU, for bench/results/.
#
#   bench/cuda.sh OUT_FOLDER [ARCH]      ARCH: sm_90 by default
#
# Run in the repository root. Correctness comes first; after LIMIT seconds (220) it ends, with what
# there is. The log is OUT_FOLDER/log.txt. From the environment:
#   BIN=FOLDER     keeps the programs there, and takes those that are there instead of building them
#   ONLY=build     ends after building: for a machine without a GPU
#   VARIANTS=base: builds no variants (compile-time constants of cuda/scan.cu)
#   PEERS=FOLDER   also times mamba_ssm from that folder
set -u
OUT=${1:?output folder}; ARCH=${2:-sm_90}; LIMIT=${LIMIT:-220}
NVCC=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ "${ONLY:-}" = build ] && LIMIT=3600
FLAGS="-O3 -std=c++17 -arch=$ARCH -lineinfo -I src -I ."
VARIANTS=${VARIANTS:-"base: chunk128:-DVX_SCAN_MIN_CHUNK=128 chunk256:-DVX_SCAN_MIN_CHUNK=256"}
SCRATCH=$(mktemp -d); trap 'rm -rf "$SCRATCH"' EXIT
BIN=${BIN:-$SCRATCH/bin}
mkdir -p "$OUT" "$BIN"; JSON=$OUT/cuda.jsonl; : > "$JSON"

say() { echo "== $SECONDS s: $*"; }
# at_most SECONDS COMMAND...: no longer than that, nor than what is left in all.
at_most() {
  local s=$(( LIMIT - SECONDS )); (( $1 < s )) && s=$1; shift
  (( s > 0 )) || { echo "no time left for: ${*##*/}"; return 124; }
  timeout -k 2 "$s" "$@"
}

compile() { at_most 3600 $NVCC $FLAGS "${@:3}" -c "$2" -o "$SCRATCH/$1.o"; } # object source flags
link() { at_most 3600 $NVCC $FLAGS "${@/#/$SCRATCH/}" -o "$BIN/$PROGRAM"; }    # objects
build_variant() { # name flags
  compile "scan_$1" cuda/scan.cu ${2//,/ } &&
    PROGRAM=bench_$1 link {bench,status,fit}.o "scan_$1.o" &&
    PROGRAM=test_$1 link {test,status,fit}.o "scan_$1.o"
}
build() {
  local pids=() v include failed=0
  include=$(dirname "$NVCC")/../include
  gcc -c -O2 -I src src/base/status.c -o "$SCRATCH/status.o" || return 1
  gcc -c -O2 -std=c11 -I src -I . -I "$include" cuda/scan_fit.c -o "$SCRATCH/fit.o" || return 1
  compile bench bench/cuda_scan.cu & pids+=($!)
  compile test cuda/tests/test_scan.cu & pids+=($!)
  gcc -c -O2 -std=c11 -I src -I . -I "$include" cuda/mamba_pack.c -o "$SCRATCH/order.o" || return 1
  compile in cuda/mamba_in.cu & pids+=($!)
  compile out cuda/mamba_out.cu & pids+=($!)
  compile pack_in cuda/mamba_in_pack.cu & pids+=($!)
  compile bench_layer bench/cuda_mamba_layer.cu & pids+=($!)
  compile test_in cuda/tests/test_mamba_in.cu & pids+=($!)
  compile test_out cuda/tests/test_mamba_out.cu & pids+=($!)
  at_most 3600 $NVCC $FLAGS bench/cuda_probe.cu -o "$BIN/probe" & pids+=($!)
  wait "${pids[@]}"; pids=()
  for v in $VARIANTS; do build_variant "${v%%:*}" "${v#*:}" & pids+=($!); done
  PROGRAM=test_in link {test_in,in,pack_in,order,status}.o & pids+=($!)
  PROGRAM=test_out link {test_out,out,order,status}.o & pids+=($!)
  for v in "${pids[@]}"; do wait "$v" || failed=1; done
  PROGRAM=bench_layer link {bench_layer,in,pack_in,out,order,scan_base,fit,status}.o || failed=1
  return $failed
}

# What limits a kernel: instructions, units, stalls, resident warps.
METRICS=gpu__time_duration.sum,smsp__inst_executed.sum,dram__bytes.sum
for m in sm__inst_executed_pipe_xu sm__inst_executed_pipe_fma sm__warps_active smsp__issue_active; do
  METRICS+=,$m.avg.pct_of_peak_sustained_active
done
METRICS+=,l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed
METRICS+=,launch__registers_per_thread,launch__occupancy_limit_shared_mem
for m in barrier long_scoreboard short_scoreboard mio_throttle math_pipe_throttle wait; do
  METRICS+=,smsp__average_warps_issue_stalled_${m}_per_issue_active.ratio
done
profile() { # program launches arguments: after three times as many launches to warm up
  local name="$*"; name=$OUT/ncu_${name// /_}.txt
  at_most 25 ncu --clock-control none --kernel-name regex:"scan_|mamba_" \
    --launch-skip $(( 3 * $2 )) --launch-count "$2" --metrics "$METRICS" "$BIN/$1" --once "${@:3}" \
    > "$name" 2>&1
}

main() {
  local v shape
  [ -x "$BIN/test_base" ] && [ -x "$BIN/bench_layer" ] || build || echo "some program was not built"
  say built
  [ "${ONLY:-}" = build ] && return
  at_most 10 nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader
  at_most 40 "$BIN/test_in"; echo "test_mamba_in: exit $?"
  at_most 40 "$BIN/test_out"; echo "test_mamba_out: exit $?"
  at_most 40 "$BIN/test_base"; echo "test_scan: exit $?"
  at_most 30 compute-sanitizer --tool memcheck "$BIN/test_in" --few 2>&1 | tail -6
  at_most 30 compute-sanitizer --tool memcheck "$BIN/test_out" --few 2>&1 | tail -6
  at_most 30 compute-sanitizer --tool memcheck "$BIN/test_base" --few 2>&1 | tail -6
  say memcheck
  at_most 10 "$BIN/probe" | tee -a "$JSON"
  at_most 40 "$BIN/bench_layer" --name layer --json "$JSON"
  at_most 40 "$BIN/bench_base" --name settled --json "$JSON"
  at_most 20 "$BIN/bench_base" --name exact --exact --json "$JSON" --quick
  at_most 20 "$BIN/bench_base" --name fitted --fitted --json "$JSON" --quick
  say bench
  for v in $VARIANTS; do
    v=${v%%:*}; [ "$v" = base ] && continue
    at_most 15 "$BIN/bench_$v" --name "$v" --json "$JSON" --quick
  done
  say variants
  for shape in "2097152 64 16 1 1" "2097152 64 32 1 1" "262144 128 64 1 1"; do
    profile bench_base 3 $shape
  done
  profile bench_layer 5 0 2
  profile bench_layer 5 1 2
  say profiled
  at_most 30 "$BIN/test_base" --large | tail -2
  at_most 40 compute-sanitizer --tool racecheck "$BIN/test_in" --few 2>&1 | tail -6
  at_most 40 compute-sanitizer --tool racecheck "$BIN/test_out" --few 2>&1 | tail -6
  at_most 90 compute-sanitizer --tool racecheck "$BIN/test_base" --few 2>&1 | tail -6
  say racecheck
  [ -n "${PEERS:-}" ] &&
    PYTHONPATH=$PEERS at_most 90 python3 bench/peers/scan_peers.py --json "$JSON"
  say end
}
main 2>&1 | tee "$OUT/log.txt"
