#!/bin/bash
# Builds the CUDA backend's tests, its benchmark and the program (NIfTI only, no oneDNN) for one architecture and packs them with
# the libraries they need, for a GPU machine that has a driver, cuDNN 9 and cuBLASLt but not Debian's packages.
#
#   scripts/pack-device.sh OUT_FOLDER [ARCH]     ARCH: 90 by default (compute capability, no dot)
#
# There: bench/cuda_backend.sh OUT_FOLDER RESULTS, in a checkout's root. Run in the repository root.
set -euo pipefail
OUT=${1:?output folder}; ARCH=${2:-90}
BUILD=build/device-$ARCH
cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$ARCH-real" \
  -DVOXMAMBA_WERROR=ON -DVOXMAMBA_BENCH=ON -DVOXMAMBA_ITK=OFF -DVOXMAMBA_DICOM=OFF -DVOXMAMBA_ONEDNN=OFF ${CMAKE_ARGS:-}
FILES="cuda/cuda_test_scan cuda/cuda_test_conv_tiled cuda/cuda_test_mamba_in cuda/cuda_test_mamba_out
  tests/cuda/cuda_ops tests/cuda/cuda_networks tests/cuda/cuda_sessions tests/cuda/cuda_sweep
  bench/voxmamba_bench bench/voxmamba_cuda_bench bench/voxmamba_cuda_conv cli/voxmamba lib/voxmamba/libvoxmamba_cuda.so"
ninja -C "$BUILD" cuda_test_scan cuda_test_conv_tiled cuda_test_mamba_in cuda_test_mamba_out cuda_ops cuda_networks cuda_sessions cuda_sweep voxmamba_bench voxmamba_cuda_bench voxmamba_cuda_conv voxmamba voxmamba_cuda

rm -rf "$OUT"
mkdir -p "$OUT/libs"
for f in $FILES; do
  install -D -s "$BUILD/$f" "$OUT/$f"
  # The C and C++ libraries and NVIDIA's libraries are the machine's own.
  ldd "$OUT/$f" | awk '$3 ~ /^\// {print $1, $3}' | while read -r name path; do
    case $name in
      libc.so* | libstdc++* | libgcc_s* | libm.so* | libdl.so* | librt.so* | libpthread.so* | libcud* | libcublas* | libnv*) ;;
      *) cp -L "$path" "$OUT/libs/$name" ;;
    esac
  done
done
du -sh "$OUT"
