#!/bin/sh
# Builds and runs every test: release, then with address and undefined-behaviour sanitizers, then valgrind.
#   --regenerate   make the goldens again with the real packages (PyTorch, nnU-Net) and compare
#   --strict       a test that is skipped for want of a Python package is a failure (CI)
. "$(dirname -- "$0")/lib.sh"

regenerate=no
strict=no
for word in "$@"; do
    case $word in
    --regenerate) regenerate=yes ;;
    --strict) strict=yes ;;
    *) die "unknown option $word (--regenerate, --strict)" ;;
    esac
done

# shellcheck disable=SC2086
need_packages $BUILD_PACKAGES $TEST_PACKAGES

# A virtual environment for the oracles. Without PyPI the tests that need it report "skipped".
venv=build/venv
mkdir -p build
wanted=tests/requirements.txt
[ $regenerate = yes ] && wanted=tests/requirements-regenerate.txt
if ! cmp -s $wanted $venv/installed.txt; then
    say "Python packages of the tests ($venv)"
    rm -rf $venv
    python3 -m venv $venv
    if $venv/bin/pip install -q --disable-pip-version-check -r $wanted; then
        cp $wanted $venv/installed.txt
    else
        printf 'The packages could not be fetched: tests that need them will be skipped.\n' >&2
    fi
fi
python="$root/$venv/bin/python"

if [ $regenerate = yes ]; then
    say "Making the goldens again"
    "$python" tests/golden/regenerate.py --compare
fi

# build PRESET: configures and builds; the log is shown only when it fails.
build() {
    say "Building $1"
    { cmake --preset "$1" -DVOXMAMBA_TEST_PYTHON="$python" && cmake --build --preset "$1"; } >"build/$1.log" 2>&1 ||
        { tail -n 60 "build/$1.log" >&2; die "the build failed (build/$1.log)"; }
}

# run_tests PRESET [ctest arguments]: every test of a build; its summary is the last thing printed.
run_tests() {
    preset=$1
    shift
    ctest --test-dir "build/$preset" --output-on-failure -j "$(nproc)" "$@" >"build/$preset-tests.log" 2>&1 && failed=no || failed=yes
    grep -E 'Failed|Skipped|Timeout|Not Run|Exception' "build/$preset-tests.log" || :
    [ $failed = no ] || { cat "build/$preset-tests.log"; die "tests failed ($preset)"; }
    if [ $strict = yes ] && grep -E '\*\*\*Skipped' "build/$preset-tests.log" | grep -v ' cuda\.'; then
        die "tests were skipped ($preset)"
    fi
    grep -E 'Total Test time|tests passed' "build/$preset-tests.log" | sort -r
}

build debug-sanitize
say "Tests with sanitizers"
run_tests debug-sanitize

build release
say "Unit tests under valgrind"
for program in build/release/tests/unit/*/unit_*; do
    [ -x "$program" ] || continue
    valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 \
        --suppressions=tests/suppressions/valgrind.supp "$program" >build/valgrind.log 2>&1 ||
        { tail -n 60 build/valgrind.log; die "valgrind: $program"; }
    printf '%s: clean\n' "$(basename "$program")"
done
say "Tests"
run_tests release
