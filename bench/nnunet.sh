#!/bin/sh
# `voxmamba segment` and nnU-Net v2 on the CPU, in one go: bench/results/nnunet-DATE.json and .md. See
# bench/peers/nnunet_predict.py for what is compared. Needs an idle machine, 16 GB of memory and a Python with nnunetv2;
# takes 5 minutes on 2 cores, with sequential 9.
#   --threads N      default: all processors
#   --features LIST  of the PlainConvUNet (default: 16,32,64,128,256)
#   --engines LIST   of voxmamba (first), nnunet, sequential (nnU-Net in one process), float32 (the same, accumulating in
#                    that type, to see why labels differ); default: voxmamba,nnunet
#   --python FILE    the Python that has nnunetv2 (default: $VOXMAMBA_BENCH_PYTHON, else python3)
#   --out PREFIX     instead of bench/results/nnunet-DATE
. "$(dirname -- "$0")/../scripts/lib.sh"

python=${VOXMAMBA_BENCH_PYTHON:-python3}
out=bench/results/nnunet-$(date +%Y-%m-%d)
threads=$(nproc)
features=16,32,64,128,256
engines=voxmamba,nnunet
while [ $# -gt 0 ]; do
    case $1 in
    --threads) threads=${2:?} && shift ;;
    --features) features=${2:?} && shift ;;
    --engines) engines=${2:?} && shift ;;
    --python) python=${2:?} && shift ;;
    --out) out=${2:?} && shift ;;
    *) die "unknown option $1 (--threads N, --features LIST, --engines LIST, --python FILE, --out PREFIX)" ;;
    esac
    shift
done
"$python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("nnunetv2"))' ||
    die "$python has no nnunetv2 (--python FILE)"

say "Building (build/bench)"
mkdir -p build
{ cmake -S . -B build/bench -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_BENCH=ON -DVOXMAMBA_TESTS=OFF \
    -DVOXMAMBA_CUDA=OFF && ninja -C build/bench voxmamba; } >build/bench.log 2>&1 ||
    { tail -n 30 build/bench.log >&2; die "the build failed (build/bench.log)"; }

say "Measuring"
exec "$python" bench/peers/nnunet_predict.py --program build/bench/cli/voxmamba --threads "$threads" \
    --features "$features" --engines "$engines" --out "$out"
