import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { type Command, CommanderError } from 'commander'
import { addAskedFor, type CommandSource } from './command/on-demand.ts'
import { CliError, exitCodes, PassedExit } from './exit-codes.ts'
import { printable } from './output/terminal-text.ts'

/** All that the client commands know of the process they run in; a test gives another one. */
export interface CliIo {
  stdout: { write(text: string): unknown; isTTY: boolean; columns: number; rows: number }
  stderr: { write(text: string): unknown; isTTY: boolean; columns: number }
  env: Readonly<Record<string, string | undefined>>
  /** The whole of standard input. Throws CliError when it is longer than so many bytes. */
  readStdin(maxBytes: number): Promise<Buffer>
  fetch?: typeof globalThis.fetch
  /** Milliseconds UTC. */
  now: () => number
  /** Wait; ends early, without an error, when `signal` is aborted. */
  pause(ms: number): Promise<void>
  /** Aborted when the user asks to stop. */
  readonly signal: AbortSignal
  /** Run a program on this terminal, found in PATH and never by a shell. Gives its exit code, 128 + n for signal n. */
  spawnInherit(argv: readonly string[]): Promise<number>
  isRoot: boolean
  /** How this program was called: its own path, then the arguments. */
  argv: readonly string[]
  /** Where the kernel's named network namespaces are (ip-netns(8)). */
  netnsDirectory: string
}

/** The real process. It touches no signal and no stream before a client command does. */
export function processIo(): CliIo {
  const interrupted = new AbortController()
  let listening = false
  const signal = () => {
    if (!listening) {
      listening = true
      // once: a second Ctrl-C ends the process the hard way
      process.once('SIGINT', () => interrupted.abort())
    }
    return interrupted.signal
  }
  return {
    stdout: outputOf(process.stdout),
    stderr: outputOf(process.stderr),
    env: process.env,
    readStdin: (maxBytes) => readAll(process.stdin, maxBytes),
    now: Date.now,
    pause: (ms) => delay(ms, undefined, { signal: signal() }).catch(() => undefined),
    get signal() {
      return signal()
    },
    spawnInherit,
    isRoot: process.getuid?.() === 0,
    argv: [process.argv[1]?.replace(/bin\/start\.js$/, 'berth') ?? 'berth', ...process.argv.slice(2)],
    netnsDirectory: '/run/netns',
  }
}

/**
 * Run the program, set up already, to its end and give its exit code; the one place where errors become codes and words
 * on standard error. Of `commands` the one that is asked for is loaded. `argv` is as in process.argv.
 */
export async function runProgram(
  program: Command,
  commands: readonly CommandSource[],
  argv: readonly string[],
  io: CliIo,
): Promise<number> {
  try {
    await addAskedFor(program, commands, argv.slice(2))
    await program.parseAsync(argv)
    return exitCodes.ok
  } catch (error) {
    if (error instanceof PassedExit) return error.exitCode
    // commander has printed its message or the help already; a group without a command is a usage error
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
    if (!(error instanceof CliError)) {
      io.stderr.write(`berth: ${printable(error instanceof Error ? error.message : String(error))}\n`)
      return exitCodes.failed
    }
    const details = error.details.map((line) => `  ${printable(line).replaceAll('\n', '\n  ')}\n`)
    io.stderr.write(`berth: ${printable(error.message)}\n${details.join('')}`)
    return error.exitCode
  }
}

function outputOf(stream: NodeJS.WriteStream) {
  let guarded = false
  return {
    write(text: string) {
      if (!guarded) {
        guarded = true
        // the reader has seen enough, as in `berth instance list | head -1`
        stream.on('error', (error) => {
          if (Reflect.get(error, 'code') !== 'EPIPE') throw error
          process.exit(exitCodes.ok)
        })
      }
      return stream.write(text)
    },
    get isTTY() {
      return stream.isTTY === true
    },
    get columns() {
      return stream.columns || 80 // 0 on a terminal that does not know its size
    },
    get rows() {
      return stream.rows || 24
    },
  }
}

async function readAll(stream: NodeJS.ReadableStream, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of stream) {
    const buffer = Buffer.from(chunk)
    bytes += buffer.byteLength
    if (bytes > maxBytes) throw new CliError(exitCodes.usage, `standard input has more than ${maxBytes} bytes`)
    chunks.push(buffer)
  }
  return Buffer.concat(chunks)
}

const signalNumbers: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGTERM: 15 }

async function spawnInherit(argv: readonly string[]): Promise<number> {
  const [file = '', ...args] = argv
  // Ctrl-C is for the program in the foreground: this process has to outlive it to pass its exit code on
  const ignore = () => {}
  const signals = ['SIGINT', 'SIGQUIT'] as const
  for (const name of signals) process.on(name, ignore)
  try {
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const child = spawn(file, args, { stdio: 'inherit' })
    child.on('error', reject)
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signalNumbers[signal ?? ''] ?? 0)))
    return await promise
  } catch (error) {
    throw new CliError(exitCodes.failed, `${file} cannot be run; is it installed?`, { cause: error })
  } finally {
    for (const name of signals) process.off(name, ignore)
  }
}
