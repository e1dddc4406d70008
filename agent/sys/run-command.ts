import { StringDecoder } from 'node:string_decoder'
import { childEnvironment } from './child-environment.ts'
import { type Spawned, type SpawnListener, spawner } from './spawner.ts'

/** What a finished command wrote; both streams are decoded as UTF-8 and bounded by `maxOutputBytes`. */
export interface CommandOutput {
  stdout: string
  stderr: string
}

export interface CommandOptions {
  /** Time limit in milliseconds; the command and what it started are killed (SIGTERM, then SIGKILL) when it passes. Default 30,000. */
  timeoutMs?: number
  signal?: AbortSignal
  /** Text given on standard input; without it standard input is empty. */
  input?: string
  cwd?: string
  /** The whole environment; `childEnvironment` unless given. */
  env?: NodeJS.ProcessEnv
  /** Of regular files that we have open; it has them, opened anew in the same way, as 3, 4, … */
  fds?: readonly number[]
  /** A command that runs it in turn, such as prlimit(1) with its options; errors speak of `argv` all the same. */
  through?: readonly string[]
  /** Called with each complete line of either stream as it is written, for progress. */
  onLine?: (line: string) => void
  /** Bound on each captured stream, in bytes. Default 8 MiB. */
  maxOutputBytes?: number
}

/** What ends commands, and all that is made of them, early. */
export type Abortable = Pick<CommandOptions, 'signal'>

/** A command that did not exit with 0: carries what is needed to understand it without running it again. */
export class CommandError extends Error {
  readonly argv: readonly string[]
  readonly exitCode: number | null
  readonly signal: string | null
  readonly stderrTail: string
  readonly stdoutTail: string

  constructor(
    argv: readonly string[],
    exitCode: number | null,
    signal: string | null,
    output: CommandOutput,
    why: string,
  ) {
    const stderrTail = output.stderr.trim().slice(-2000)
    super(`${argv[0]} ${why}${stderrTail === '' ? '' : `: ${stderrTail}`}`)
    this.name = 'CommandError'
    this.argv = argv
    this.exitCode = exitCode
    this.signal = signal
    this.stderrTail = stderrTail
    this.stdoutTail = output.stdout.slice(-2000)
  }
}

/** Time a command gets to end after SIGTERM, and then after SIGKILL until it is given up, milliseconds. */
const graceMs = { afterTerm: 2000, afterKill: 10_000 } as const

/**
 * Run a command to its end and give its output. Never a shell: `argv[0]` is looked up in PATH, the rest are passed
 * as they are. Throws CommandError when it cannot be started, exits with another code than 0, is killed or times out,
 * and does not start it when its signal is aborted already.
 */
export async function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandOutput> {
  if (argv.length === 0) throw new TypeError('runCommand needs at least the name of a command')
  const { timeoutMs = 30_000, maxOutputBytes = 8 * 1024 * 1024, signal } = options
  if (signal?.aborted) throw new CommandError(argv, null, null, { stdout: '', stderr: '' }, 'was cancelled')
  const captured = { stdout: new Capture(maxOutputBytes), stderr: new Capture(maxOutputBytes) }
  const lines = options.onLine === undefined ? null : new Lines(options.onLine)
  const { promise: over, resolve } = Promise.withResolvers<Ending>()
  /** Why we end it; null while it may run. */
  let why: string | null = null
  const timers: NodeJS.Timeout[] = []
  const later = (ms: number, work: () => void) => timers.push(setTimeout(work, ms))
  const end = (reason: string) => {
    if (why !== null) return
    why = reason
    command?.kill('SIGTERM')
    later(graceMs.afterTerm, () => {
      command?.kill('SIGKILL')
      later(graceMs.afterKill, () => resolve({ exitCode: null, signal: null })) // it hangs in the kernel
    })
  }
  const abort = () => end('was cancelled')
  const command = start(argv, options, {
    output(stream, data) {
      if (!captured[stream].add(data)) end(`wrote more than ${maxOutputBytes} bytes`)
      lines?.add(stream, data)
    },
    ended: resolve,
    failed(cause) {
      why ??= `could not be started (${cause})`
      resolve({ exitCode: null, signal: null })
    },
  })
  later(timeoutMs, () => end(`did not finish within ${timeoutMs} ms`))
  signal?.addEventListener('abort', abort)
  const { exitCode, signal: killedBy } = await over
  for (const timer of timers) clearTimeout(timer)
  signal?.removeEventListener('abort', abort)
  lines?.end()
  const output = { stdout: captured.stdout.text(), stderr: captured.stderr.text() }
  if (exitCode === 0 && why === null) return output
  const how = killedBy === null ? `exited with code ${exitCode}` : `was killed by ${killedBy}`
  throw new CommandError(argv, exitCode, killedBy, output, why ?? how)
}

type Ending = Parameters<SpawnListener['ended']>[0]

/** Null, and the listener is told, when nothing can be asked for. */
function start(argv: readonly string[], options: CommandOptions, listener: SpawnListener): Spawned | null {
  const { through = [], input, fds = [], cwd = '', env = childEnvironment() } = options
  try {
    const asked = {
      argv: [...through, ...argv],
      env,
      cwd,
      descriptors: fds,
      input: input !== undefined,
      detached: false,
    }
    const command = spawner.spawn(asked, listener)
    if (input !== undefined) {
      command.write(Buffer.from(input))
      command.endInput()
    }
    return command
  } catch (error) {
    listener.failed(error instanceof Error ? error.message : String(error))
    return null
  }
}

/** What a stream wrote, up to a bound in bytes. */
class Capture {
  readonly #chunks: Buffer[] = []
  #room: number

  constructor(mostBytes: number) {
    this.#room = mostBytes
  }

  /** False when it is more than the bound, and what is above it is not kept. */
  add(data: Buffer): boolean {
    const kept = data.subarray(0, this.#room)
    if (kept.length > 0) this.#chunks.push(kept)
    this.#room -= kept.length
    return kept.length === data.length
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString()
  }
}

/** Both streams as lines, each as it is complete. */
class Lines {
  readonly #onLine: (line: string) => void
  readonly #streams = { stdout: new StringDecoder(), stderr: new StringDecoder() }
  readonly #begun = { stdout: '', stderr: '' }

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine
  }

  add(stream: 'stdout' | 'stderr', data: Buffer): void {
    const lines = (this.#begun[stream] + this.#streams[stream].write(data)).split('\n')
    this.#begun[stream] = lines.pop() ?? ''
    for (const line of lines) this.#onLine(line)
  }

  end(): void {
    for (const line of Object.values(this.#begun)) if (line !== '') this.#onLine(line)
  }
}
