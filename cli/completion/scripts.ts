/**
 * What `berth completion` prints. Each script hands the words up to the cursor to `berth __complete`, which prints a
 * candidate a line, with a tab and a description except for bash; `:files` alone asks for file names.
 */
export const completionScripts = {
  bash: `# berth completion for bash: source <(berth completion bash)
_berth() {
  local IFS=$'\\n' current=\${COMP_WORDS[COMP_CWORD]}
  [[ $current == '=' ]] && current=
  COMPREPLY=($("\${COMP_WORDS[0]}" __complete bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  if [[ \${COMPREPLY[0]} == ':files' ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -F _berth berth
`,
  zsh: `#compdef berth
# berth completion for zsh: berth completion zsh > ~/.zsh/completions/_berth (a directory of fpath)
_berth() {
  local -a lines described
  local line
  lines=("\${(@f)$("\${words[1]}" __complete zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ $lines[1] == ':files' ]]; then
    _files
    return
  fi
  for line in $lines; do
    [[ -n $line ]] && described+=("\${\${line%%$'\\t'*}//:/\\\\:}\${\${(M)line%$'\\t'*}/$'\\t'/:}")
  done
  _describe berth described
}
if [[ $funcstack[1] == _berth ]]; then
  _berth "$@"
else
  compdef _berth berth
fi
`,
  fish: `# berth completion for fish: berth completion fish > ~/.config/fish/completions/berth.fish
function __berth_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l lines ($words[1] __complete fish -- $words[2..-1] 2>/dev/null)
  if test "$lines[1]" = ':files'
    __fish_complete_path (commandline -ct)
  else
    printf '%s\\n' $lines
  end
end
complete -c berth -f -a '(__berth_complete)'
`,
} as const
