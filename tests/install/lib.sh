#!/bin/sh
# Shared by the install tests: sourced, never run.
set -eu

sanitizer_flags() {
    case ${VOXMAMBA_SANITIZE:-OFF} in
    ON | 1 | TRUE) echo "-fsanitize=address,undefined" ;;
    esac
}

# run_consumer PROGRAM PREFIX: it runs against the library of PREFIX and finds the shipped model there.
run_consumer() {
    LD_LIBRARY_PATH="$2/$VOXMAMBA_LIBDIR" "$1" "$VOXMAMBA_VERSION" "$2/share/voxmamba/models" >"$1.out"
    grep -q '"name":[[:space:]]*"hippocampus"' "$1.out" || { cat "$1.out"; echo "no model found" >&2; exit 1; }
    LD_LIBRARY_PATH="$2/$VOXMAMBA_LIBDIR" ldd "$1" | grep -qF "$2/$VOXMAMBA_LIBDIR/$VOXMAMBA_SONAME" ||
        { echo "$1 does not use $2" >&2; exit 1; }
}
