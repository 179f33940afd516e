# bash completion of voxmamba; installed as share/bash-completion/completions/voxmamba
_voxmamba() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local common="--quiet --verbose --log-format --log-paths --help"
    local device="--device --precision --threads --tta --no-tta --step --memory"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "segment info models evaluate --help --version" -- "$cur"))
        return
    fi
    case $prev in
    --device) COMPREPLY=($(compgen -W "auto cpu cuda cuda:0 cuda:all" -- "$cur")); return ;;
    --precision) COMPREPLY=($(compgen -W "auto fp32 fp16 bf16" -- "$cur")); return ;;
    --format) COMPREPLY=($(compgen -W "nii.gz nii nrrd seg.nrrd mha dcmseg" -- "$cur")); return ;;
    --log-format) COMPREPLY=($(compgen -W "text json" -- "$cur")); return ;;
    --threads | --step | --memory | --labels | --remove-small | --shard | --jobs | --series | --tolerance) return ;;
    -m | --model)
        COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" models 2>/dev/null | sed -n 's/^\([^ ][^ ]*\) .*/\1/p')" -- "$cur")
            $(compgen -f -- "$cur"))
        return
        ;;
    -o | --output | --stats | --report | --channel) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    case $cur in
    -*)
        case $verb in
        segment)
            COMPREPLY=($(compgen -W "--output --model $device --format --labels --split --probabilities --keep-largest
                --remove-small --stats --preview --report --resume --overwrite --shard --jobs --batch --dry-run --series
                --channel --tolerate-geometry --anonymous --force $common" -- "$cur"))
            ;;
        info) COMPREPLY=($(compgen -W "--json --plan --anonymous --series --model --format $device $common" -- "$cur")) ;;
        models) COMPREPLY=($(compgen -W "--json $common" -- "$cur")) ;;
        evaluate) COMPREPLY=($(compgen -W "--json --labels --tolerance --overlap-only $common" -- "$cur")) ;;
        esac
        ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
    esac
}
complete -o filenames -F _voxmamba voxmamba
