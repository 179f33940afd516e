#!/bin/sh
# find_package.sh PREFIX BUILD: a CMake project finds, links and runs the library of PREFIX.
. "$(dirname -- "$0")/lib.sh"
prefix=$1 build=$2
rm -rf "$build"
"$CMAKE" -S "$(dirname -- "$0")/find_package" -B "$build" -DCMAKE_PREFIX_PATH="$prefix" -DWANTED_PREFIX="$prefix" \
    -DWANTED_VERSION="$VOXMAMBA_VERSION" -DCMAKE_C_COMPILER="$CC" -DCMAKE_C_FLAGS="$(sanitizer_flags)"
"$CMAKE" --build "$build"
run_consumer "$build/consumer" "$prefix"
