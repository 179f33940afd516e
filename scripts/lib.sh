# Shared by the scripts: sourced, never run. Every script runs from the project's root.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; exit 1; }

# need_packages NAME...: installs the Debian packages that are missing.
need_packages() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "missing packages:$missing (this script installs them on Debian 12 only)"
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing packages:$missing (run as root, or install sudo)"
        as_root=sudo
    fi
    say "Installing$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        die "the packages could not be installed"
}

BUILD_PACKAGES="gcc g++ libc6-dev cmake ninja-build pkg-config zlib1g-dev libdeflate-dev libcjson-dev libpng-dev libnifti2-dev
 libinsighttoolkit5-dev libdcmtk-dev libdnnl-dev"
TEST_PACKAGES="libcmocka-dev python3 python3-venv valgrind dicom3tools dcmtk libosmesa6"
