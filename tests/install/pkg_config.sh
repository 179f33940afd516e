#!/bin/sh
# pkg_config.sh PREFIX BUILD: a plain compiler call with pkg-config's flags.
. "$(dirname -- "$0")/lib.sh"
prefix=$1 build=$2
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
rm -rf "$build"
mkdir -p "$build"
export PKG_CONFIG_PATH="$prefix/$VOXMAMBA_LIBDIR/pkgconfig"
found=$(pkg-config --modversion voxmamba)
[ "$found" = "$VOXMAMBA_VERSION" ] || { echo "voxmamba.pc says version $found" >&2; exit 1; }
# eval: pkg-config escapes the blanks of a folder's name for a shell.
eval "$CC -std=c11 -Wall -Wextra -Werror $(sanitizer_flags) $(pkg-config --cflags voxmamba)" \
    '"$(dirname -- "$0")/consumer.c" -o "$build/consumer"' "$(pkg-config --libs voxmamba)"
run_consumer "$build/consumer" "$prefix"
