_mlkit_train() {
    local IFS=$'\n'
    COMPREPLY=($(mlkit_train --complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o nospace -o bashdefault -o default -F _mlkit_train mlkit_train mlkit_eval mlkit_predict mlkit_reproduce mlkit_runs
