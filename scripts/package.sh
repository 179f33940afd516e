#!/bin/sh
# Makes the two packages of a release in build/dist/ (or the folder that is named):
#   voxmamba-VERSION-linux-x86_64.tar.gz   unpack anywhere, run bin/voxmamba: it holds every library beyond glibc
#   voxmamba_VERSION_amd64.deb             for Debian 12, with dependencies on Debian's packages
# and SHA256SUMS. Neither needs a network to run. tests/install/bare_root.sh tries both in a bare Debian root.
. "$(dirname -- "$0")/lib.sh"

case ${1:-} in -*) die "usage: scripts/package.sh [FOLDER]" ;; esac
out=${1:-build/dist}
# shellcheck disable=SC2086
need_packages $BUILD_PACKAGES patchelf dpkg-dev binutils file

build=build/package
version=$(sed -n 's/^project(voxmamba VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
[ "$(uname -m)" = x86_64 ] || die "packages are made for x86_64 only, so far"
name=voxmamba-$version-linux-x86_64
bundle=$build/$name
mkdir -p "$out" build
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || :)
# The same files give the same bytes: dated by the last commit, below also sorted and owned by root.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

# ---- Build ---------------------------------------------------------------------------------------
# compile LIBDIR: one build folder for both; only what names the library folder is built again.
compile() {
    # This machine's folders stay out of the binaries, and so does the look into the source's models/
    # that only a program in its build folder takes (cli/models_path.c).
    map="-ffile-prefix-map=$root=. -UVX_BUILD_FOLDER"
    { cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_CUDA=OFF -DVOXMAMBA_TESTS=OFF \
        -DVOXMAMBA_COMMIT="$commit" -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR="$1" -DCMAKE_C_FLAGS="$map" -DCMAKE_CXX_FLAGS="$map" &&
        cmake --build $build; } >build/package.log 2>&1 ||
        { tail -n 30 build/package.log >&2; die "the build failed (build/package.log)"; }
}

# ---- The Debian package --------------------------------------------------------------------------
say "Building the Debian package"
compile "lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)"
(cd $build && rm -f ./*.deb && cpack -G DEB >cpack.log 2>&1) || { cat $build/cpack.log >&2; die "cpack failed"; }
mv $build/voxmamba_*.deb "$out/"

# ---- The relocatable tarball ---------------------------------------------------------------------
say "Gathering the relocatable tarball"
compile lib
rm -rf "$bundle"
cmake --install $build --prefix "$bundle" --strip >/dev/null
private=$bundle/lib/voxmamba
# The folder that 3D Slicer is shown, beside lib/ and share/ as in Slicer's own layout.
mv "$private/cli-modules" "$bundle/cli-modules"
module=$bundle/cli-modules/VoxMambaSegment
library=$(basename "$(readlink -f "$bundle/lib/libvoxmamba.so")")
doc=$bundle/share/doc/voxmamba/third-party
mkdir -p "$private" "$doc"

# owner_of FILE: the Debian package that a library of this machine came with.
owner_of() {
    real=$(readlink -f "$1")
    { dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}"; } | head -n 1 | sed 's/:.*//'
}

# Every library that the loader finds for the programs and for the library, glibc's own excepted.
{ ldd "$bundle/bin/voxmamba"; ldd "$module"; ldd "$bundle/lib/$library"; ldd "$private/voxmamba-dicom"; } | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/.*=> not found/missing/p' |
    sort -u >$build/libraries
! grep -qx missing $build/libraries || die "ldd misses a library"
: >$build/owners
while read -r file; do
    owner=$(owner_of "$file")
    [ -n "$owner" ] || die "no Debian package owns $file: its licence is not known"
    case $owner in libc6) continue ;; esac
    cp -L "$file" "$private/$(basename "$file")"
    printf '%s %s\n' "$owner" "$(basename "$file")" >>$build/owners
done <$build/libraries

# ICU's data: 31 MB that nothing asks for. See packaging/no_icu_data.c.
icu_data=$(find "$private" -name "libicudata.so.*" -printf "%f\n")
if [ -n "$icu_data" ]; then
    symbol=$(nm -D --defined-only "$private/$icu_data" | awk '{print $3}')
    gcc -shared -fPIC -O2 -Wall -Werror -DICU_DATA_SYMBOL="$symbol" packaging/no_icu_data.c \
        -Wl,-soname,"$icu_data" -nostdlib -s -o "$private/$icu_data"
    sed -i "/ $icu_data\$/d" $build/owners
fi

# DCMTK's dictionary of DICOM attributes is a file of its own package.
dictionary=$(dpkg-query -L "$(sed -n 's/ libdcmdata\.so.*//p' $build/owners)" | grep '/dicom\.dic$')
[ -s "$dictionary" ] || die "DCMTK's dicom.dic was not found"
cp "$dictionary" "$bundle/share/voxmamba/dicom.dic"

# DT_RPATH, not RUNPATH: it comes before LD_LIBRARY_PATH, which other programs set for their own libraries.
search_in() {
    chmod u+w "$2"
    patchelf --remove-rpath "$2"
    patchelf --force-rpath --set-rpath "$1" "$2"
}
# $ORIGIN is for the loader, not for this shell.
# shellcheck disable=SC2016
{
    search_in '$ORIGIN/../lib/voxmamba' "$bundle/bin/voxmamba"
    search_in '$ORIGIN/../lib/voxmamba' "$module"
    search_in '$ORIGIN/voxmamba' "$bundle/lib/$library"
    for file in "$private"/*; do search_in '$ORIGIN' "$file"; done
}
chmod 644 "$private"/*
chmod 755 "$private/voxmamba-dicom"

# ---- Licences ------------------------------------------------------------------------------------
{
    printf '# Libraries in this package\n\nUnchanged from Debian 12, save for the search path in each file (DT_RPATH). '
    printf 'The licence of each is in the file of its name here. The source of each version: '
    printf 'https://snapshot.debian.org/package/SOURCE/VERSION/\n\n'
    printf '| Debian package | source | version | files |\n|---|---|---|---|\n'
    cut -d' ' -f1 $build/owners | sort -u | while read -r owner; do
        cp "/usr/share/doc/$owner/copyright" "$doc/$owner.txt"
        # shellcheck disable=SC2016
        printf '| %s | %s | %s |\n' "$owner" "$(dpkg-query -W -f '${source:Package} | ${source:Version}' "$owner" | head -n 1)" \
            "$(sed -n "s/^$owner //p" $build/owners | sort | tr '\n' ' ' | sed 's/ $//')"
    done
    [ -z "$icu_data" ] ||
        printf '\n%s is not the ICU project'"'"'s: it is an empty table built from VoxMamba'"'"'s packaging/no_icu_data.c.\n' "$icu_data"
    printf '\nlibdcmtk: share/voxmamba/dicom.dic is its dictionary of DICOM attributes.\n'
} >"$doc/README.md"
grep -hoE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$doc"/*.txt "$bundle/share/doc/voxmamba/copyright" | sort -u |
    while read -r text; do
        if [ -e "$text" ]; then cp -L "$text" "$doc/$(basename "$text").licence"; fi
    done

# ---- Checks --------------------------------------------------------------------------------------
say "Checking"
newest=""
for file in "$bundle/bin/voxmamba" "$module" "$bundle/lib/$library" "$private"/*; do
    dynamic=$(readelf -d "$file")
    case $dynamic in *RUNPATH*) die "$file has a RUNPATH" ;; esac
    case $dynamic in *'(RPATH)'*) ;; *) die "$file has no RPATH" ;; esac
    for needed in $(printf '%s\n' "$dynamic" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        [ -e "$private/$needed" ] || [ "$(owner_of "$(ldconfig -p | sed -n "s|.*$needed .* => ||p" | head -n 1)")" = libc6 ] ||
            die "$file needs $needed, which is not in the package"
    done
    if strings -a "$file" | grep -qF "$root/"; then die "$file names the folder it was built in"; fi
    newest="$newest $(readelf -V "$file" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -n 1)"
done
# shellcheck disable=SC2086
glibc=$(printf '%s\n' $newest | sort -V | tail -n 1)

# As 3D Slicer would start the module: with libraries of the same names, which do not work, in LD_LIBRARY_PATH, and another Python's home.
fakes=$root/$build/fakes
rm -rf "$fakes"
mkdir "$fakes"
for file in "$private"/*; do
    gcc -shared -nostdlib -x c /dev/null -Wl,-soname,"$(basename "$file")" -o "$fakes/$(basename "$file")"
done
as_slicer() { env LD_LIBRARY_PATH="$fakes" PYTHONHOME=/nowhere LC_ALL=de_DE.UTF-8 VOXMAMBA_MODELS= "$@"; }
if as_slicer ldd "$module" | grep -F "$fakes"; then die "the module takes libraries of LD_LIBRARY_PATH"; fi
as_slicer "$module" --xml >"$fakes/printed.xml" 2>"$fakes/messages" || die "the module does not start"
cmp "$fakes/printed.xml" "$module.xml" && [ ! -s "$fakes/messages" ] || die "--xml is not the file beside the module"
as_slicer "$module" --model hippocampus --device cpu sample-data/hippocampus_380.nii.gz "$fakes/module.seg.nrrd" >"$fakes/progress"
tail -n 5 "$fakes/progress" | grep -qx '<filter-progress>1.0000</filter-progress>' || die "the module's progress does not end with 1"
"$bundle/bin/voxmamba" segment -q sample-data/hippocampus_380.nii.gz -m hippocampus --device cpu -o "$fakes/program.seg.nrrd" --overwrite
cmp "$fakes/module.seg.nrrd" "$fakes/program.seg.nrrd" || die "the module's segmentation is another than the program's"
rm -rf "$fakes"

cat >"$bundle/README.txt" <<EOF
VoxMamba $version for Linux on x86-64, glibc $glibc or newer.

    bin/voxmamba models
    bin/voxmamba segment SCAN -m hippocampus -o MASK

3D Slicer (Linux): Edit, Application Settings, Modules, Additional module paths: add this folder's cli-modules, restart; the module is
"VoxMamba Segment" (share/doc/voxmamba/docs/slicer.md).

The folder may be moved. Nothing is downloaded and nothing is written outside the files that you name.
share/doc/voxmamba holds the manual, the licence and, in third-party/, the licences of the libraries in lib/voxmamba.
Research software: not a medical device, not for diagnosis.
EOF

# ---- Pack ----------------------------------------------------------------------------------------
tar -C $build --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf $build/bundle.tar "$name"
gzip -9nc $build/bundle.tar >"$out/$name.tar.gz"
rm -f $build/bundle.tar
(cd "$out" && sha256sum "$name.tar.gz" voxmamba_"$version"_*.deb >SHA256SUMS)

say "Largest in the tarball (bytes)"
find "$bundle" -type f -printf '%s %P\n' | sort -rn | head -n 8
say "Made in $out/ (tarball: glibc $glibc or newer, $(du -sm "$bundle" | cut -f1) MB unpacked)"
(cd "$out" && ls -l ./*.tar.gz ./*.deb)
