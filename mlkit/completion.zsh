_mlkit_train() {
    local -a found
    found=("${(@f)$(mlkit_train --complete zsh "$LBUFFER" 2>/dev/null)}")
    [[ -n $found ]] && compadd -Q -S '' -- $found || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _mlkit_train mlkit_train mlkit_eval mlkit_predict mlkit_reproduce mlkit_runs
