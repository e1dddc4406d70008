import { Argument, type Command, type Option } from 'commander'
import { withExamples } from '../command/help.ts'
import { addAskedFor, type CommandSource } from '../command/on-demand.ts'
import type { CliIo } from '../io.ts'
import { openSession } from '../session.ts'
import { completionScripts } from './scripts.ts'
import { completionSource, liveNames } from './sources.ts'

const shells = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof shells)[number]

/** Printed alone: the shell shall complete file names. */
const filesDirective = ':files'

/** Most candidates that are printed. */
const mostCandidates = 1000

/** `berth completion`: scripts for shells. */
export function addCompletionCommand(program: Command, io: CliIo): void {
  const command = program
    .command('completion')
    .description('print a script that completes commands, options, ids and names in a shell')
    .addArgument(new Argument('<shell>', 'shell to print it for').choices(shells))
    .action((shell: Shell) => {
      io.stdout.write(completionScripts[shell])
    })
  withExamples(command, [
    'source <(berth completion bash)',
    'berth completion zsh > ~/.zsh/completions/_berth',
    'berth completion fish > ~/.config/fish/completions/berth.fish',
  ])
}

/** The hidden command that the printed scripts call; `all` are the commands that can be completed. */
export function addCompleteCommand(program: Command, io: CliIo, all: readonly CommandSource[]): void {
  program
    .command('__complete', { hidden: true })
    .argument('<shell>')
    .argument('[words...]')
    .action(async (shell: Shell, words: string[], _flags: object, self: Command) => {
      await addAskedFor(program, all, words.slice(0, -1))
      const candidates = await complete(program, self, io, shell, words).catch(() => []) // silent: somebody is typing
      const lines = candidates.slice(0, mostCandidates).map(({ word, about }) => {
        return shell === 'bash' || about === '' ? word : `${word}\t${about}`
      })
      io.stdout.write(lines.map((line) => `${line}\n`).join(''))
    })
}

interface Candidate {
  word: string
  about: string
}

/** What may stand in place of the last of the words behind `berth`. */
async function complete(
  program: Command,
  self: Command,
  io: CliIo,
  shell: Shell,
  typed: readonly string[],
): Promise<Candidate[]> {
  const words = shell === 'bash' ? joinAssignments(typed) : [...typed]
  const last = words.pop() ?? ''
  const position = locate(program, words)
  if (position === null) return []
  const { command, pending, operands, options } = position
  if (pending === null) {
    const assigned = /^(--[a-z-]+)=(.*)$/s.exec(last)
    if (assigned !== null) {
      const [, name = '', value = ''] = assigned
      const option = optionsOf(command).find(({ long }) => long === name)
      const found = option === undefined ? [] : await valuesOf(command, option)
      // bash completes what stands behind its own word break, the others the whole word
      const prefix = shell === 'bash' ? '' : `${name}=`
      return matching(found, value).map(({ word, about }) => ({ word: `${prefix}${word}`, about }))
    }
    if (last.startsWith('-')) return matching(flagsOf(command, options), last)
    if (command.commands.length > 0 && operands.length === 0) return matching(commandsOf(command), last)
  }
  const target = pending ?? argumentAt(command, operands.length)
  return target === null ? [] : matching(await valuesOf(command, target), last)

  async function valuesOf(of: Command, target: Option | Argument): Promise<Candidate[]> {
    const choices = target.argChoices
    if (choices !== undefined) return choices.map((word) => ({ word, about: '' }))
    const source = completionSource(of, target)
    if (source === null) return []
    if (source === 'files') return [{ word: filesDirective, about: '' }]
    const server = words.indexOf('--server')
    if (server !== -1) program.setOptionValue('server', words[server + 1])
    return (await liveNames(openSession(io, self), source)).map(({ name, id }) => {
      return name === id ? { word: id, about: '' } : { word: name, about: id }
    })
  }
}

interface Position {
  command: Command
  /** The option whose value comes next, or null. */
  pending: Option | null
  operands: string[]
  /** Options that are there already. */
  options: Set<string>
}

/** Where the words before the last one lead; null behind `--`, where another program's words begin. */
function locate(program: Command, words: readonly string[]): Position | null {
  const position: Position = { command: program, pending: null, operands: [], options: new Set() }
  for (const word of words) {
    if (position.pending !== null) {
      position.pending = null
      continue
    }
    if (word === '--') return null
    if (word.startsWith('-') && word !== '-') {
      const option = optionsOf(position.command).find(({ long, short }) => long === word || short === word)
      if (option === undefined) continue
      position.options.add(option.long ?? '')
      if (option.required || option.optional) position.pending = option
      continue
    }
    const sub = position.operands.length > 0 ? undefined : subcommand(position.command, word)
    if (sub === undefined) position.operands.push(word)
    else position.command = sub
  }
  return position
}

function subcommand(command: Command, word: string): Command | undefined {
  return command.commands.find((each) => each.name() === word || each.aliases().includes(word))
}

/** Options of a command and of those above it, which commander takes at any place. */
function optionsOf(command: Command): Option[] {
  const own = command.createHelp().visibleOptions(command)
  return command.parent === null ? own : [...own, ...command.parent.options]
}

function flagsOf(command: Command, given: ReadonlySet<string>): Candidate[] {
  const all = new Map<string, Candidate>()
  for (let at: Command | null = command; at !== null; at = at.parent) {
    for (const { long, description, variadic } of at === command ? optionsOf(at) : at.options) {
      const isRepeated = variadic || description.includes('may be repeated')
      if (long && (isRepeated || !given.has(long))) all.set(long, { word: long, about: firstWords(description) })
    }
  }
  return [...all.values()]
}

function commandsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ word: each.name(), about: firstWords(each.description()) }))
}

function argumentAt(command: Command, index: number): Argument | null {
  const declared = command.registeredArguments
  const last = declared.at(-1)
  return declared[index] ?? (last?.variadic ? last : null)
}

function matching(candidates: readonly Candidate[], start: string): Candidate[] {
  return candidates.filter(({ word }) => word === filesDirective || word.startsWith(start))
}

/** Descriptions stand on one line of a menu. */
function firstWords(text: string): string {
  return text.replaceAll(/\s+/g, ' ').slice(0, 60)
}

/** Bash breaks words at `=`: `--state = run` is put together again. */
function joinAssignments(words: readonly string[]): string[] {
  const joined: string[] = []
  for (const word of words) {
    const before = joined.at(-1)
    const follows = before?.startsWith('--') && (word.startsWith('=') || before.endsWith('='))
    if (follows) joined[joined.length - 1] = `${before}${word}`
    else joined.push(word)
  }
  return joined
}
