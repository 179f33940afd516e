#!/bin/sh
# The CPU benchmark on this machine, ours and PyTorch's in one go: bench/results/cpu-DATE.json and .md.
# Takes under 12 minutes on 2 cores, with --quick under 4. Needs an idle machine, a C++ compiler for torch.compile
# and a Python with torch and safetensors.
#   --prepare        compile PyTorch's variants into build/bench-work and measure nothing: once beforehand, also on a
#                    busy machine; without it the first run spends its time on that and leaves out what does not fit
#   --quick          the 40x56x40 patch only, with the fastest PyTorch scan
#   --minutes N      what has not begun by then is left out (default 11)
#   --threads N      default: all processors
#   --python FILE    the Python that has torch (default: $VOXMAMBA_BENCH_PYTHON, else python3)
#   --out PREFIX     instead of bench/results/cpu-DATE
. "$(dirname -- "$0")/../scripts/lib.sh"

python=${VOXMAMBA_BENCH_PYTHON:-python3}
threads=$(nproc)
out=bench/results/cpu-$(date +%Y-%m-%d)
quick=""
minutes=11
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick minutes=3.5 ;;
    --prepare) quick=--prepare minutes=60 ;;
    --minutes) minutes=${2:?} && shift ;;
    --threads) threads=${2:?} && shift ;;
    --python) python=${2:?} && shift ;;
    --out) out=${2:?} && shift ;;
    *) die "unknown option $1 (--quick, --prepare, --minutes N, --threads N, --python FILE, --out PREFIX)" ;;
    esac
    shift
done
"$python" -c 'import torch, safetensors' 2>/dev/null || die "$python has no torch or no safetensors (--python FILE)"

say "Building (build/bench)"
mkdir -p build
{ cmake -S . -B build/bench -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_BENCH=ON -DVOXMAMBA_TESTS=OFF \
    -DVOXMAMBA_CUDA=OFF && ninja -C build/bench voxmamba_bench; } >build/bench.log 2>&1 ||
    { tail -n 30 build/bench.log >&2; die "the build failed (build/bench.log)"; }

say "Measuring"
# shellcheck disable=SC2086
exec "$python" bench/compare_cpu.py --program build/bench/bench/voxmamba_bench --threads "$threads" \
    --minutes $minutes $quick --out "$out"
