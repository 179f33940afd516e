#!/bin/sh
# Soft targets for the training folds 0-2: for each, a twin trained on the other two says what it sees in the cases that
# it was not trained on. Labels drawn by one rater on an ambiguous border are noisy; these maps are not biased by the
# very label that they are to correct. Afterwards: train.py ... --soft OUT/soft
#
#   crossfit.sh DATA OUT STEPS [train.py's options]     GPUS="0 1 2": one fold on each, side by side
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
data=${1:?folder of cases} out=${2:?output folder} steps=${3:?steps}
shift 3
mkdir -p "$out"

teacher() { # FOLD OTHER OTHER
    python3 "$here/train.py" --recipe "$here/recipes/hippocampus.json" --data "$data" --twin --steps "$steps" \
        --out "$out/teacher_$1" --validation-parts "$1" --train-parts "$2" "$3" --save-probabilities "$out/soft" \
        --seed "1$1" $options
}

options=$*
if [ -n "${GPUS:-}" ]; then
    # shellcheck disable=SC2086
    set -- $GPUS
    [ $# -eq 3 ] || { echo "crossfit.sh: GPUS names three devices" >&2; exit 1; }
    CUDA_VISIBLE_DEVICES=$1 teacher 0 1 2 >"$out/teacher_0.log" 2>&1 & a=$!
    CUDA_VISIBLE_DEVICES=$2 teacher 1 0 2 >"$out/teacher_1.log" 2>&1 & b=$!
    CUDA_VISIBLE_DEVICES=$3 teacher 2 0 1 >"$out/teacher_2.log" 2>&1 & c=$!
    wait $a && wait $b && wait $c
else
    teacher 0 1 2
    teacher 1 0 2
    teacher 2 0 1
fi
tail -n 2 "$out"/teacher_*.log 2>/dev/null || :
