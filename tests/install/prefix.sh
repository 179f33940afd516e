#!/bin/sh
# prefix.sh BUILD WORK: installs BUILD under WORK/prefix, and once more to be moved to "WORK/moved prefix".
set -eu
build=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
"$CMAKE" --install "$build" --prefix "$work/prefix" >"$work/install.log"
"$CMAKE" --install "$build" --prefix "$work/first" >"$work/install-moved.log"
mv "$work/first" "$work/moved prefix"
# Nothing that a user's build reads may name the folder that it was installed to first, or the build's.
cd "$work/moved prefix"
if grep -rlF -e "$work" -e "$build" --include='*.pc' --include='*.cmake' --include='*.h' .; then
    echo "these files name the prefix" >&2
    exit 1
fi
