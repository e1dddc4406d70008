import type { Command } from 'commander'

/** A command of the program whose modules are loaded when it is asked for. */
export interface CommandSource {
  /** The name of the command, then its aliases. */
  names: readonly [string, ...string[]]
  /** Load the command and add it to the program; `all` are the sources of all the program's commands. */
  add: (program: Command, all: readonly CommandSource[]) => Promise<void>
}

/**
 * Add the command that the words behind the program's name ask for; all commands, in their order, where they name none,
 * for the help and for suggestions. What the program has already is not added again.
 */
export async function addAskedFor(
  program: Command,
  all: readonly CommandSource[],
  words: readonly string[],
): Promise<void> {
  const name = firstOperand(program, words)
  const asked = all.find(({ names }) => name !== undefined && names.includes(name))
  const present = new Set(program.commands.map((command) => command.name()))
  for (const source of asked === undefined ? all : [asked]) {
    if (!present.has(source.names[0])) await source.add(program, all)
  }
}

/** The first word that is neither an option of the program nor the value of one. */
function firstOperand(program: Command, words: readonly string[]): string | undefined {
  for (let at = 0; at < words.length; at++) {
    const word = words[at]
    if (!word?.startsWith('-')) return word
    if (program.options.some(({ long, short, required }) => required && (long === word || short === word))) at++
  }
}
