#!/bin/sh
# bare_root.sh ROOT PACKAGES [PYTHON]: tries the packages of scripts/package.sh in a copy of ROOT, a bare Debian 12
# (debootstrap --variant=minbase bookworm ROOT), without a network. Needs root, and gcc, patchelf and apt out here.
# PYTHON: an interpreter with pydicom and nibabel; with it DICOM series are segmented there too.
set -eu
if [ $# -lt 2 ] || [ "$(id -u)" != 0 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 1
fi
bare=$1
packages=$(readlink -f "$2")
python=${3:-}
source=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
root=$work/root
trap 'umount "$root/proc" "$root/dev" 2>/dev/null || :; rm -rf --one-file-system "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# inside COMMAND...: in the root, no network, an empty environment. user_inside: as an unprivileged user too.
inside() { unshare --net chroot "$root" env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive "$@"; }
user_inside() { unshare --net chroot --userspec=65534:65534 "$root" env -i PATH=/usr/bin:/bin "$@"; }

fresh_root() {
    umount "$root/proc" "$root/dev" 2>/dev/null || :
    rm -rf --one-file-system "$root"
    cp -a "$bare" "$root"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    mkdir -p "$root/data" "$root/out"
    cp "$source"/sample-data/*.nii.gz "$root/data/"
    [ -z "$python" ] || "$python" "$source/tests/install/dicom_series.py" "$root/data/hippocampus_380.nii.gz" "$root/data/dicom"
    chmod -R a+rX "$root/data"
    chmod 777 "$root/out"
    if inside bash -c 'exec 3<>/dev/tcp/1.1.1.1/53' 2>/dev/null; then fail "the root has a network"; fi
}

# try PROGRAM [VARIABLE=VALUE...]: every verb, several formats.
try() {
    program=$1
    shift
    rm -rf "$root"/out/*
    user_inside "$@" "$program" --version
    user_inside "$@" "$program" models | grep -q '^hippocampus ' || fail "$program finds no model"
    user_inside "$@" "$program" segment -q /data/hippocampus_380.nii.gz -m hippocampus -o /out/mask.nii.gz \
        --preview --stats /out/stats.json --report /out/report.json
    user_inside "$@" "$program" evaluate /out/mask.nii.gz /data/hippocampus_380_labels.nii.gz
    for ending in seg.nrrd mha; do
        user_inside "$@" "$program" segment -q /data/hippocampus_380.nii.gz -m hippocampus -o /out/mask.$ending
        user_inside "$@" "$program" info /out/mask.$ending >/dev/null
    done
    for file in mask.nii.gz mask.png stats.json report.json mask.seg.nrrd mask.mha; do
        [ -s "$root/out/$file" ] || fail "$program did not write $file"
    done
    [ -n "$python" ] || return 0
    for series in scan.nii.gz explicit implicit rle; do
        user_inside "$@" "$program" segment -q /data/dicom/$series -m hippocampus -o /out/${series%.nii.gz}.nii.gz
        # The same voxels on the same grid: the same mask.
        user_inside "$@" "$program" evaluate /out/${series%.nii.gz}.nii.gz /out/scan.nii.gz | grep -qE 'mean over labels +1\.0000 +1\.0000' ||
            fail "the mask of the $series series is another"
    done
}

# try_module MODULE PROGRAM [VARIABLE=VALUE...]: VoxMambaSegment as 3D Slicer starts it gives the program's own bytes.
try_module() {
    module=$1 program=$2
    shift 2
    rm -rf "$root"/out/*
    user_inside "$@" PYTHONHOME=/nowhere "$module" --xml >"$work/xml" 2>"$work/err"
    cmp "$work/xml" "$source/gui-plugin/SlicerVoxMamba/VoxMambaSegment/VoxMambaSegment.xml" && [ ! -s "$work/err" ] || fail "$module --xml"
    user_inside "$@" PYTHONHOME=/nowhere "$module" --returnparameterfile /out/r --model hippocampus --device cpu \
        --statistics /out/s.tsv /data/hippocampus_380.nii.gz /out/module.seg.nrrd >"$work/progress" 2>"$work/err"
    [ ! -s "$work/err" ] || { cat "$work/err" >&2; fail "$module has something to say"; }
    grep -qx '<filter-progress>1.0000</filter-progress>' "$work/progress" || fail "its progress does not end with 1"
    user_inside "$program" segment -q /data/hippocampus_380.nii.gz -m hippocampus --device cpu -o /out/program.seg.nrrd
    cmp "$root/out/module.seg.nrrd" "$root/out/program.seg.nrrd"
    [ "$(cd "$root/out" && echo *)" = "module.seg.nrrd program.json program.seg.nrrd r s.tsv" ] || fail "$module leaves other files"
    [ -z "$python" ] || user_inside "$@" "$module" --model hippocampus /data/dicom/implicit /out/dicom.seg.nrrd >/dev/null
}

# try_cuda PROGRAM: with the CUDA module, but without cuDNN: one line that names it, and the CPU.
try_cuda() {
    code=0
    user_inside "$1" segment -q /data/hippocampus_380.nii.gz -m hippocampus -o /out/cuda.nii.gz --device cuda 2>"$work/err" || code=$?
    if [ $code != 5 ] || [ "$(wc -l <"$work/err")" != 1 ] || ! grep -q 'needs libcudnn\.so\.9' "$work/err"; then
        cat "$work/err" >&2
        fail "$1 --device cuda: exit $code"
    fi
    user_inside "$1" segment -q /data/hippocampus_380.nii.gz -m hippocampus -o /out/mask.nii.gz --overwrite --device auto
    [ "$(sha256sum <"$root/out/mask.nii.gz")" = "$first" ] || fail "another mask"
}

say "Tarball in a bare root"
fresh_root
mkdir "$root/opt/first place"
tar -C "$root/opt/first place" -xzf "$packages"/voxmamba-[0-9]*-linux-x86_64.tar.gz
name=$(basename "$root/opt/first place"/voxmamba-*)
try "/opt/first place/$name/bin/voxmamba"
first=$(sha256sum <"$root/out/mask.nii.gz")

say "The same, moved"
mv "$root/opt/first place/$name" "$root/opt/moved"
try /opt/moved/bin/voxmamba
[ "$(sha256sum <"$root/out/mask.nii.gz")" = "$first" ] || fail "another mask"
try_module /opt/moved/cli-modules/VoxMambaSegment /opt/moved/bin/voxmamba

for tarball in "$packages"/voxmamba-cuda-*-linux-x86_64.tar.gz; do
    [ -e "$tarball" ] || continue
    say "The same with the CUDA module, without cuDNN"
    tar -C "$root/opt/moved" --strip-components=1 -xzf "$tarball"
    try_cuda /opt/moved/bin/voxmamba
    rm "$root/opt/moved/lib/voxmamba/libvoxmamba_cuda.so"
done

say "The same, with wrong libraries of the same names in LD_LIBRARY_PATH"
mkdir "$root/hostile"
for file in "$root"/opt/moved/lib/voxmamba/*; do
    gcc -shared -nostdlib -x c /dev/null -Wl,-soname,"$(basename "$file")" -o "$root/hostile/$(basename "$file")"
done
chmod -R a+rX "$root/hostile"
try /opt/moved/bin/voxmamba LD_LIBRARY_PATH=/hostile
[ "$(sha256sum <"$root/out/mask.nii.gz")" = "$first" ] || fail "another mask"
for program in bin/voxmamba cli-modules/VoxMambaSegment; do
    if user_inside LD_LIBRARY_PATH=/hostile ldd /opt/moved/$program | grep hostile; then fail "a wrong library is used"; fi
done
try_module /opt/moved/cli-modules/VoxMambaSegment /opt/moved/bin/voxmamba LD_LIBRARY_PATH=/hostile
# The same program with a RUNPATH must fall for them, or this test tests nothing.
cp "$root/opt/moved/bin/voxmamba" "$root/opt/moved/bin/with-runpath"
patchelf --remove-rpath "$root/opt/moved/bin/with-runpath"
# shellcheck disable=SC2016
patchelf --set-rpath '$ORIGIN/../lib/voxmamba' "$root/opt/moved/bin/with-runpath"
user_inside /opt/moved/bin/with-runpath --version >/dev/null || fail "the control does not run"
if user_inside LD_LIBRARY_PATH=/hostile /opt/moved/bin/with-runpath --version >/dev/null 2>&1; then
    fail "the wrong libraries are not wrong"
fi
rm "$root/opt/moved/bin/with-runpath"

say "A C program with the tarball's library, the same LD_LIBRARY_PATH"
export PKG_CONFIG_PATH="$root/opt/moved/lib/pkgconfig"
version=$(pkg-config --modversion voxmamba)
# shellcheck disable=SC2046,SC2016
gcc "$source/tests/install/consumer.c" $(pkg-config --cflags --libs voxmamba) -Wl,--allow-shlib-undefined \
    -Wl,--disable-new-dtags,-rpath,/opt/moved/lib -o "$root/opt/consumer"
user_inside LD_LIBRARY_PATH=/hostile /opt/consumer "$version" /opt/moved/share/voxmamba/models | grep -q hippocampus ||
    fail "the library does not load"

say "Debian package in a bare root, its dependencies from .deb files"
fresh_root
mkdir -p "$root/debs/partial"
cp "$packages"/voxmamba_*_amd64.deb "$root/debs/"
apt-get -qq -y -o Dir::State::status="$root/var/lib/dpkg/status" -o Dir::Cache::archives="$root/debs" \
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root --download-only install "$root"/debs/voxmamba_*_amd64.deb
du -sh "$root/debs" | cut -f1
inside sh -c 'dpkg -i /debs/*.deb >/out/dpkg.log 2>&1 || { cat /out/dpkg.log; exit 1; }'
try_module "/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/voxmamba/cli-modules/VoxMambaSegment" /usr/bin/voxmamba
try /usr/bin/voxmamba
[ "$(sha256sum <"$root/out/mask.nii.gz")" = "$first" ] || fail "another mask"
for package in "$packages"/voxmamba-cuda_*_amd64.deb; do
    [ -e "$package" ] || continue
    say "The CUDA module's package, without cuDNN"
    cp "$package" "$root/debs/"
    inside sh -c 'dpkg -i /debs/voxmamba-cuda_*.deb >/out/dpkg.log 2>&1 || { cat /out/dpkg.log; exit 1; }'
    try_cuda /usr/bin/voxmamba
    inside dpkg --verify voxmamba-cuda
    inside dpkg -r voxmamba-cuda
done
inside dpkg --verify voxmamba
inside dpkg -r voxmamba
if inside find /usr -name '*voxmamba*' | grep .; then fail "the package leaves files behind"; fi

say "All passed"
