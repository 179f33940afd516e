#!/bin/sh
# Makes the two packages of the CUDA module in build/dist/ (or the folder that is named), beside those of package.sh:
#   voxmamba-cuda-VERSION-linux-x86_64.tar.gz   unpack over the program's tarball
#   voxmamba-cuda_VERSION_amd64.deb             beside the program's package
# and SHA256SUMS of all that is there. Needs nvcc and cuDNN 9, no GPU. ARCHITECTURES="90-real" builds for less.
. "$(dirname -- "$0")/lib.sh"

case ${1:-} in -*) die "usage: scripts/package-cuda.sh [FOLDER]" ;; esac
out=${1:-build/dist}
# shellcheck disable=SC2086
need_packages $BUILD_PACKAGES dpkg-dev binutils file

build=build/package-cuda
version=$(sed -n 's/^project(voxmamba VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=voxmamba-$version-linux-x86_64
bundle=$build/$name
mkdir -p "$out" build
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

# ---- Build ---------------------------------------------------------------------------------------
# The module and nothing else; CMAKE_ARGS adds options. This machine's folders stay out of it.
say "Building the CUDA module"
rm -f $build/CMakeCache.txt # ARCHITECTURES and CMAKE_ARGS of an earlier run do not stay
map="-ffile-prefix-map=$root=."
# shellcheck disable=SC2086
{ cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DVOXMAMBA_CUDA=ON -DVOXMAMBA_TESTS=OFF -DVOXMAMBA_ITK=OFF \
    -DVOXMAMBA_DICOM=OFF -DVOXMAMBA_ONEDNN=OFF -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON \
    -DCMAKE_INSTALL_LIBDIR="lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" -DCMAKE_C_FLAGS="$map" -DCMAKE_CUDA_FLAGS="-Xcompiler=$map" \
    ${ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$ARCHITECTURES"} ${CMAKE_ARGS:-} &&
    cmake --build $build --target voxmamba_cuda; } >build/package-cuda.log 2>&1 ||
    { tail -n 30 build/package-cuda.log >&2; die "the build failed (build/package-cuda.log)"; }

# ---- Pack ----------------------------------------------------------------------------------------
(cd $build && rm -f ./*.deb && cpack -G DEB -D CPACK_COMPONENTS_ALL=cuda \
    -D CPACK_PACKAGE_DESCRIPTION_SUMMARY="Computes VoxMamba's networks on NVIDIA GPUs" >cpack.log 2>&1) || { cat $build/cpack.log >&2; die "cpack failed"; }
mv $build/voxmamba-cuda_*.deb "$out/"

rm -rf "$bundle" $build/installed
cmake --install $build --prefix $build/installed --component cuda --strip >/dev/null
mkdir -p "$bundle/lib" "$bundle/share"
mv $build/installed/lib/*/voxmamba "$bundle/lib/"
mv $build/installed/share/doc "$bundle/share/"
cp LICENSE "$bundle/share/doc/voxmamba-cuda/"
module=$bundle/lib/voxmamba/libvoxmamba_cuda.so

# ---- Checks --------------------------------------------------------------------------------------
say "Checking"
dynamic=$(readelf -d "$module")
case $dynamic in *RUNPATH*) die "$module has a RUNPATH" ;; esac
# shellcheck disable=SC2016
case $dynamic in *'(RPATH)'*'[$ORIGIN]'*) ;; *) die "$module does not look beside itself" ;; esac
for needed in $(printf '%s\n' "$dynamic" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    case $needed in
        libcudnn.so.9 | libcublasLt.so.13 | libstdc++.so.6 | libgcc_s.so.1 | libm.so.6 | libc.so.6 | ld-linux-x86-64.so.2) ;;
        *) die "$module needs $needed" ;;
    esac
done
versions=$(readelf -V "$module" | grep -oE '(GLIBC|GLIBCXX|CXXABI|GCC)_[0-9.]+' | sort -uV)
# Every libstdc++ and libgcc since GCC 3.4 has these.
printf '%s\n' "$versions" | grep -vE '^GLIBC_|^CXXABI_1\.3$|^GCC_3\.0$' && die "$module needs a newer C++ runtime"
glibc=$(printf '%s\n' "$versions" | sed -n 's/^GLIBC_//p' | tail -n 1)
[ "$(printf '%s\n2.34\n' "$glibc" | sort -V | tail -n 1)" = 2.34 ] || die "$module needs glibc $glibc; its package says 2.34"
[ "$(nm -D --defined-only "$module" | awk '{print $3}')" = vx_backend_module ] || die "$module shows more than one symbol"
if strings -a "$module" | grep -qF "$root/"; then die "$module names the folder it was built in"; fi

tar -C $build --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf $build/bundle.tar "$name"
gzip -9nc $build/bundle.tar >"$out/voxmamba-cuda-$version-linux-x86_64.tar.gz"
rm -f $build/bundle.tar
(cd "$out" && sha256sum ./*.tar.gz ./*.deb | sed 's|\./||' >SHA256SUMS)
say "Made in $out/ (glibc $glibc or newer, $(stat -c %s "$module") bytes unpacked)"
(cd "$out" && ls -l voxmamba-cuda*)
