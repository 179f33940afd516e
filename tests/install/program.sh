#!/bin/sh
# program.sh PREFIX SOURCE: the installed program finds the installed model beside it and segments the sample scan; so does
# the installed module for 3D Slicer, to the same bytes.
. "$(dirname -- "$0")/lib.sh"
prefix=$1 source=$2
unset VOXMAMBA_MODELS
out="$prefix.out"
rm -rf "$out"
mkdir "$out"
"$prefix/bin/voxmamba" models --json >"$out/models.json"
grep -qF "$(basename "$prefix")" "$out/models.json" || { cat "$out/models.json"; echo "the model is not the prefix's" >&2; exit 1; }
# Sanitizers make the network minutes long, and change nothing about where files lie.
[ -z "$(sanitizer_flags)" ] || exit 0
"$prefix/bin/voxmamba" segment "$source/sample-data/hippocampus_380.nii.gz" -m hippocampus -o "$out/mask.nii.gz"
"$prefix/bin/voxmamba" evaluate "$out/mask.nii.gz" "$source/sample-data/hippocampus_380_labels.nii.gz"
[ "$VOXMAMBA_SLICER" = 1 ] || exit 0
module="$prefix/$VOXMAMBA_LIBDIR/voxmamba/cli-modules/VoxMambaSegment"
"$module" --xml | cmp - "$module.xml"
"$module" --model hippocampus "$source/sample-data/hippocampus_380.nii.gz" "$out/module.seg.nrrd"
"$prefix/bin/voxmamba" segment "$source/sample-data/hippocampus_380.nii.gz" -m hippocampus -o "$out/program.seg.nrrd"
cmp "$out/module.seg.nrrd" "$out/program.seg.nrrd"
