# Sourced by scripts that run a pack of scripts/pack-device.sh: sets LD_LIBRARY_PATH to the pack's libraries and, where
# the loader does not know cuDNN and cuBLASLt, to wherever this machine keeps them.
device_libraries() { # PACK
  local path lib file
  path=$(readlink -f "$1/libs")
  for lib in libcudnn.so.9 libcublasLt.so.13; do
    ldconfig -p | grep -q "$lib" && continue
    file=$(find /usr /opt -name "$lib" -print -quit 2> /dev/null)
    if [ -n "$file" ]; then path=$path:$(dirname "$file"); else echo "$lib was not found"; fi
  done
  export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
