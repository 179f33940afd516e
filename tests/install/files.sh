#!/bin/sh
# files.sh PREFIX: everything that an installation promises is there.
set -eu
prefix=$1
cd "$prefix"
failed=0
dicom=
if [ "$VOXMAMBA_DICOM" = 1 ]; then dicom=$VOXMAMBA_LIBDIR/voxmamba/voxmamba-dicom; fi
module=
if [ "$VOXMAMBA_SLICER" = 1 ]; then module=$VOXMAMBA_LIBDIR/voxmamba/cli-modules/VoxMambaSegment; fi
for file in bin/voxmamba include/voxmamba.h "$VOXMAMBA_LIBDIR/$VOXMAMBA_SONAME" "$VOXMAMBA_LIBDIR/libvoxmamba.so" \
    $dicom $module ${module:+$module.xml} "$VOXMAMBA_LIBDIR/pkgconfig/voxmamba.pc" "$VOXMAMBA_LIBDIR/cmake/voxmamba/voxmamba-config.cmake" \
    share/voxmamba/models/hippocampus.safetensors share/voxmamba/models/head_neck.safetensors \
    share/voxmamba/models/head_neck.md share/bash-completion/completions/voxmamba \
    share/doc/voxmamba/LICENSE share/doc/voxmamba/copyright share/doc/voxmamba/docs/install.md share/man/man1/voxmamba.1; do
    [ -s "$file" ] || { echo "missing: $file" >&2; failed=1; }
done
soname=$(readelf -d "$VOXMAMBA_LIBDIR/libvoxmamba.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ "$soname" = "$VOXMAMBA_SONAME" ] || { echo "the library's SONAME is $soname" >&2; failed=1; }
exported=$(nm -D --defined-only "$VOXMAMBA_LIBDIR/libvoxmamba.so" | awk '$2 ~ /[TBDRVW]/ && $3 !~ /^vxm_/ {print $3}')
[ -z "$exported" ] || { printf 'exported without vxm_:\n%s\n' "$exported" >&2; failed=1; }
# A folder in the search path would be the build machine's.
for elf in bin/voxmamba "$VOXMAMBA_LIBDIR/libvoxmamba.so" $dicom $module; do
    if readelf -d "$elf" | grep -E 'RPATH|RUNPATH'; then
        echo "$elf has a search path" >&2
        failed=1
    fi
done
exit $failed
