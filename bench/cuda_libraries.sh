# Shared by the scripts that run a pack of scripts/pack-device.sh: sourced, never run.

# find_cuda_libraries PACK: sets LD_LIBRARY_PATH to the pack's libraries and, where the loader does
# not find cuDNN and cuBLASLt, to wherever this machine keeps them.
find_cuda_libraries() {
  local path lib file
  path=$(readlink -f "$1/libs")
  for lib in libcudnn.so.9 libcublasLt.so.13; do
    ldconfig -p | grep -q "$lib" && continue
    file=$(find /usr /opt -name "$lib" -print -quit 2> /dev/null)
    [ -n "$file" ] && path=$path:$(dirname "$file") || echo "$lib was not found"
  done
  export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
