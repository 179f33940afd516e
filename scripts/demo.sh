#!/bin/sh
# Builds VoxMamba and segments the sample scan with the shipped model on the CPU. Leaves the mask, a preview picture
# and the report in demo-output/, and prints label volumes and the agreement with the scan's manual segmentation.
. "$(dirname -- "$0")/lib.sh"

# shellcheck disable=SC2086
need_packages $BUILD_PACKAGES

say "Building (build/demo)"
mkdir -p build
cmake -S . -B build/demo -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_TESTS=OFF >build/demo.log 2>&1 &&
    ninja -C build/demo >>build/demo.log 2>&1 || { tail -n 30 build/demo.log >&2; die "the build failed (build/demo.log)"; }

voxmamba=build/demo/cli/voxmamba
scan=sample-data/hippocampus_380.nii.gz
truth=sample-data/hippocampus_380_labels.nii.gz
out=demo-output
rm -rf "$out"
mkdir "$out"

say "Segmenting $scan"
$voxmamba segment "$scan" -m hippocampus -o "$out/mask.nii.gz" --device cpu --preview --stats "$out/stats.json" \
    --report "$out/report.json"
say "Label volumes"
sed -n 's/^[[:space:]]*//; /"name"/p; /"ml"/p' "$out/stats.json"
say "Agreement with the manual segmentation"
$voxmamba evaluate "$out/mask.nii.gz" "$truth"
say "Written to $out/"
ls "$out"
