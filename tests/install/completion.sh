#!/bin/sh
# completion.sh PREFIX: bash completes verbs, options, choices and models of the installed program.
set -eu
command -v bash >/dev/null || { echo "skipped: no bash"; exit 77; }
prefix=$1 exec bash -eu <<'BASH'
. "$prefix/share/bash-completion/completions/voxmamba"

# expect WANTED WORD...: the last word is being completed; WANTED is among the answers.
expect() {
    local wanted=$1
    shift
    COMP_WORDS=("$prefix/bin/voxmamba" "$@")
    COMP_CWORD=$#
    _voxmamba "$prefix/bin/voxmamba" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || :
    printf '%s\n' "${COMPREPLY[@]}" | grep -qxF -- "$wanted" ||
        { echo "'$*' does not complete to $wanted but to: ${COMPREPLY[*]}" >&2; exit 1; }
}
expect segment se
expect --version --v
expect --overwrite segment --ov
expect --json info x.nii.gz --js
expect cpu segment --device c
expect seg.nrrd segment --format s
expect bf16 segment --precision ""
expect hippocampus segment -m hip
# Every option that --help shows.
for verb in segment info models evaluate; do
    for option in $("$prefix/bin/voxmamba" $verb --help | grep -oE '^ +(-[a-z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
        expect "$option" $verb -
    done
done
BASH
