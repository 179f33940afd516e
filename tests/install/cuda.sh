#!/bin/sh
# cuda.sh PREFIX SOURCE: the installed program without the CUDA module, with modules that do not load, and with the real
# one where this build has it, and no device to be seen: --device cuda is exit 5 and one line, auto is the CPU.
. "$(dirname -- "$0")/lib.sh"
prefix=$1 source=$2
unset VOXMAMBA_MODELS LD_LIBRARY_PATH
export CUDA_VISIBLE_DEVICES=
copy="$prefix.cuda"
rm -rf "$copy"
cp -R "$prefix" "$copy"
module="$copy/$VOXMAMBA_LIBDIR/voxmamba/libvoxmamba_cuda.so"
mkdir -p "$(dirname "$module")" "$copy/out"
real=
if [ -e "$module" ]; then
    real="$copy/real.so"
    mv "$module" "$real"
fi
fail() { echo "$*" >&2; cat "$copy/err" >&2; exit 1; }
segment() { "$copy/bin/voxmamba" segment "$source/sample-data/hippocampus_380.nii.gz" -m hippocampus -o "$copy/out/mask.nii.gz" "$@" 2>"$copy/err"; }

# refuses WORDS: --device cuda ends with exit code 5 and one line that has WORDS.
refuses() {
    code=0
    segment --device cuda || code=$?
    [ $code = 5 ] || fail "exit code $code, not 5, where '$1' was expected"
    [ "$(wc -l <"$copy/err")" = 1 ] && grep -qF "$1" "$copy/err" || fail "not one line with '$1'"
    [ -z "$(ls "$copy/out")" ] || fail "a refused run leaves files"
}
# takes_cpu WARNINGS: auto computes on the CPU, with a warning only where there is a driver to speak of.
takes_cpu() {
    wanted=0
    [ ! -e /dev/nvidiactl ] || wanted=$1
    segment -v --dry-run --device auto >/dev/null || fail "auto does not run"
    grep -q '^voxmamba: device: CPU' "$copy/err" || fail "auto is not the CPU"
    [ "$(grep -c 'warning: ' "$copy/err")" = "$wanted" ] || fail "not $wanted warnings"
}

refuses 'the CUDA module is not installed'
takes_cpu 1

# A library that it needs is not there.
touch "$copy/empty.c"
"$CC" -shared -fPIC "$copy/empty.c" -Wl,-soname,libvxmissing.so.9 -o "$copy/libvxmissing.so"
"$CC" -shared -fPIC "$copy/empty.c" -Wl,--no-as-needed -L"$copy" -lvxmissing -o "$module"
refuses 'the CUDA module needs libvxmissing.so.9, which is not found'
takes_cpu 1

# A module of another version.
echo 'void *vx_backend_module(unsigned abi); void *vx_backend_module(unsigned abi) { return abi ? 0 : &abi; }' >"$copy/other.c"
"$CC" -shared -fPIC -w "$copy/other.c" -o "$module"
refuses 'of another build than this program'
takes_cpu 1

[ -n "$real" ] || { echo "this build has no CUDA module"; exit 0; }
# The folder that it is looked for in is its own, not the build machine's.
[ "$(readelf -d "$real" | sed -n 's/.*(RPATH).*\[\(.*\)\]/\1/p')" = "\$ORIGIN" ] || fail "its search path is not \$ORIGIN"
! readelf -d "$real" | grep -q RUNPATH || fail "it has a RUNPATH"
[ "$(nm -D --defined-only "$real" | awk '{print $3}')" = vx_backend_module ] || fail "it shows other symbols"
[ -s "$copy/share/doc/voxmamba-cuda/copyright" ] || fail "it has no copyright file"
cp "$real" "$module"
refuses 'no NVIDIA d' # driver, or device
takes_cpu 0
# The same without cuDNN: it asks for one that no machine has.
LC_ALL=C sed 's/libcudnn\.so\.9/libcudnn.so.0/g' "$real" >"$module"
refuses 'the CUDA module needs libcudnn.so.0, which is not found'
takes_cpu 1
