#!/bin/sh
# Memory and time of large volumes with many classes, on the CPU: bench/results/large-DATE.json and .md.
# 512x512x400 voxels of 0.75x0.75x1.5 mm, SegMambaSkip of width 16 with random weights, patch 128^3, 25 and 5 classes:
# (a) the model at 1.5 mm, (b) the model at the volume's own spacing. Needs a Python with numpy and 4 GB of memory; takes
# some 15 minutes on 2 cores, with --whole half an hour: (b) has 294 windows.
#   --only LIST      of a25,a5,b25,b5 (default: all)
#   --add            keep the other rows of the results that are there
#   --whole          run (b) to its end; else it is stopped once its memory is highest, and its times are of that part
#   --threads N      default: all processors
#   --python FILE    the Python that has numpy (default: python3)
#   --out PREFIX     instead of bench/results/large-DATE
. "$(dirname -- "$0")/../scripts/lib.sh"

python=python3
out=bench/results/large-$(date +%Y-%m-%d)
only=a25,a5,b25,b5
threads=$(nproc)
whole=""
add=""
while [ $# -gt 0 ]; do
    case $1 in
    --whole) whole=--whole ;;
    --add) add=--add ;;
    --only) only=${2:?} && shift ;;
    --threads) threads=${2:?} && shift ;;
    --python) python=${2:?} && shift ;;
    --out) out=${2:?} && shift ;;
    *) die "unknown option $1 (--only LIST, --add, --whole, --threads N, --python FILE, --out PREFIX)" ;;
    esac
    shift
done
"$python" -c 'import numpy' 2>/dev/null || die "$python has no numpy (--python FILE)"

say "Building (build/bench)"
mkdir -p build
{ cmake -S . -B build/bench -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_BENCH=ON -DVOXMAMBA_TESTS=OFF \
    -DVOXMAMBA_CUDA=OFF && ninja -C build/bench voxmamba voxmamba_bench; } >build/bench.log 2>&1 ||
    { tail -n 30 build/bench.log >&2; die "the build failed (build/bench.log)"; }

say "Measuring"
# shellcheck disable=SC2086
exec "$python" bench/large.py --program build/bench/cli/voxmamba --bench build/bench/bench/voxmamba_bench \
    --only "$only" --threads "$threads" $whole $add --out "$out"
