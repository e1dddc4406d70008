import type { Command } from 'commander'

/** Give a command examples at the end of its help, one a line, and a last paragraph where there is more to say. */
export function withExamples(command: Command, examples: readonly string[], more = ''): Command {
  const lines = examples.map((example) => `\n  ${example}`).join('')
  return command.addHelpText('after', `\nExamples:${lines}${more === '' ? '' : `\n\n${more}`}`)
}
