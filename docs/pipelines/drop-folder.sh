#!/bin/sh
# Segments every study that is put into a folder and hands the DICOM SEG objects on (docs/pipelines.md).
#   drop-folder.sh [--drain] ROOT [OPTIONS OF voxmamba segment...]
# A folder below ROOT/inbox is a study. When nothing in it has changed for QUIET seconds it is moved to ROOT/work and
# segmented to ROOT/results/STUDY/; DELIVER is run with the results; then it is moved to ROOT/done, or to ROOT/failed with
# what voxmamba said in STUDY.log. What can be right later (no memory, a full disk, nobody to deliver to) stays in
# ROOT/work and is tried again; so is what a killed run left. --drain: end when inbox and work are empty.
# Environment: VOXMAMBA (the program), DELIVER (a command line; the files are appended to it; empty: results stay),
# QUIET (seconds, 30), POLL (seconds between looks, 5), RETRY (seconds before something is tried again, 60).
set -eu

drain=no
if [ "${1-}" = --drain ]; then
    drain=yes
    shift
fi
[ $# -ge 1 ] || { echo "usage: drop-folder.sh [--drain] ROOT [OPTIONS OF voxmamba segment...]" >&2; exit 1; }
root=$1
shift
voxmamba=${VOXMAMBA:-voxmamba} deliver=${DELIVER-} quiet=${QUIET:-30} poll=${POLL:-5} retry=${RETRY:-60}

mkdir -p "$root/inbox" "$root/work" "$root/results" "$root/done" "$root/failed"
exec 9>"$root/.lock" # two loops over one folder would take each other's studies
flock -n 9 || { echo "drop-folder.sh: another one works on this folder" >&2; exit 1; }
trap 'exit 143' TERM
trap 'exit 130' INT

# Folders are named after UIDs or patients: the log names a study by a hash, as voxmamba's JSON messages do.
say() { printf '%s study %s: %s\n' "$(date +%FT%T)" "$(printf %s "$1" | sha256sum | cut -c1-12)" "$2"; }

# A name for what comes as $1 that no earlier study has: nothing replaces the results of another one.
free_name() {
    name=$1 n=2
    while [ -e "$root/work/$name" ] || [ -e "$root/done/$name" ] || [ -e "$root/failed/$name" ]; do
        name=$1.$n n=$((n + 1))
    done
    printf %s "$name"
}

is_quiet() { [ -z "$(find "$1" -newermt "$quiet seconds ago" -print -quit)" ]; }

take_in() {
    for study in "$root"/inbox/*/; do
        if [ -d "$study" ] && is_quiet "$study"; then
            mv "${study%/}" "$root/work/$(free_name "$(basename "$study")")"
        fi
    done
}

# Ends with 0 when all results were accepted; there may be none.
hand_on() {
    [ -n "$deliver" ] || return 0
    set -- "$1"/*.dcm
    [ -e "$1" ] || return 0
    sh -c "$deliver \"\$@\"" deliver "$@" 9>&-
}

# False: to be tried again.
process() {
    name=$1
    shift
    code=0
    "$voxmamba" segment "$root/work/$name" -o "$root/results/$name/" --format dcmseg --resume -q --log-format json "$@" \
        2>"$root/work/.log" 9>&- || code=$?
    case $code in
    0 | 6) hand_on "$root/results/$name" || { say "$name" "not delivered, to be tried again"; return 1; } ;;
    esac
    case $code in
    0) mv "$root/work/$name" "$root/done/" ;;
    2 | 3 | 6)
        mv "$root/work/.log" "$root/failed/$name.log"
        mv "$root/work/$name" "$root/failed/"
        ;;
    1) # an option is wrong: wrong for every study
        cat "$root/work/.log" >&2
        exit 1
        ;;
    *)
        say "$name" "exit code $code, to be tried again"
        return 1
        ;;
    esac
    say "$name" "exit code $code"
}

while :; do
    take_in
    pause=$poll
    for study in "$root"/work/*/; do
        [ -d "$study" ] || continue
        process "$(basename "$study")" "$@" || pause=$retry
    done
    if [ $drain = yes ] && [ -z "$(find "$root/inbox" "$root/work" -mindepth 1 -maxdepth 1 -not -name '.*' -print -quit)" ]; then
        exit 0
    fi
    sleep "$pause" 9>&- &
    wait $! # a signal ends the loop at once, not after the sleep
done
