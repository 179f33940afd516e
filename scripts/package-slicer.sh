#!/bin/sh
# Makes of the tarball of scripts/package.sh what users of 3D Slicer install, in build/dist/ (or the folder that is named):
#   VoxMamba-VERSION-Slicer-X.Y-linux-amd64.tar.gz     for "Install from file" of the Extensions Manager of Slicer X.Y
#   VoxMamba-VERSION-slicer-modules-linux-amd64.tar.gz for any Slicer, by two additional module paths
# No Slicer is needed: packaging/slicer stands in for it, and the files are only laid out. BUNDLE may be a folder, too; a second
# one, of scripts/package-cuda.sh, is laid over the first after a semicolon: 'A.tar.gz;B.tar.gz'.
. "$(dirname -- "$0")/lib.sh"

version=$(sed -n 's/^project(voxmamba VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
slicer=${1:-}
bundle=${2:-build/dist/voxmamba-$version-linux-x86_64.tar.gz}
out=${3:-build/dist}
printf '%s\n' "$slicer" | grep -qx '[0-9]\{1,2\}\.[0-9]\{1,2\}' || die "usage: scripts/package-slicer.sh X.Y [BUNDLE [FOLDER]] (X.Y: a version of Slicer, as 5.8)"
absolute=""
saved_ifs=$IFS
IFS=';'
for each in $bundle; do
    [ -e "$each" ] || die "$each is not there (scripts/package.sh makes it)"
    case $each in /*) ;; *) each=$root/$each ;; esac
    absolute=${absolute:+$absolute;}$each
done
IFS=$saved_ifs

: "${CMAKE:=cmake}"
command -v "$CMAKE" >/dev/null || need_packages cmake
mkdir -p build "$out"
work=$(mktemp -d build/package-slicer.XXXXXX)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo NA)

extension=VoxMamba-$version-Slicer-$slicer-linux-amd64
modules=VoxMamba-$version-slicer-modules-linux-amd64
{ "$CMAKE" -S gui-plugin/SlicerVoxMamba -B "$work/build" -DSlicer_DIR="$root/packaging/slicer" -DSlicer_VERSION="$slicer" \
    -DVOXMAMBA_BUNDLE="$absolute" -DVOXMAMBA_REVISION="$revision" && "$CMAKE" --install "$work/build" --prefix "$work/$extension"; } >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; die "the extension could not be laid out"; }
cp -R "$work/$extension/lib/Slicer-$slicer" "$work/$modules"

# The same files give the same bytes, as in package.sh. A tar: zip programs forget which files may be run.
for name in "$extension" "$modules"; do
    [ -x "$(find "$work/$name" -path '*/cli-modules/VoxMambaSegment')" ] || die "the command-line module may not be run"
    tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf "$work/$name.tar" "$name"
    gzip -9nc "$work/$name.tar" >"$out/$name.tar.gz"
done
say "Made in $out/"
(cd "$out" && ls -l "$extension.tar.gz" "$modules.tar.gz")
