import { execa } from 'execa'

/** What a finished command wrote; both streams are decoded as UTF-8 and bounded by `maxOutputBytes`. */
export interface CommandOutput {
  stdout: string
  stderr: string
}

export interface CommandOptions {
  /** Time limit in milliseconds; the command is killed (SIGTERM, then SIGKILL) when it passes. Default 30,000. */
  timeoutMs?: number
  signal?: AbortSignal
  /** Text given on standard input; without it standard input is empty. */
  input?: string
  cwd?: string
  env?: Record<string, string>
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

/**
 * Run a command to its end and give its output. Never a shell: `argv[0]` is looked up in PATH, the rest are passed
 * as they are. Throws CommandError when it cannot be started, exits with another code than 0, is killed or times out.
 */
export async function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandOutput> {
  const [file, ...args] = argv
  if (file === undefined) throw new TypeError('runCommand needs at least the name of a command')
  const timeoutMs = options.timeoutMs ?? 30_000
  const child = execa(file, args, {
    reject: false,
    timeout: timeoutMs,
    forceKillAfterDelay: 2000,
    maxBuffer: options.maxOutputBytes ?? 8 * 1024 * 1024,
    stripFinalNewline: false,
    ...(options.onLine === undefined ? {} : { all: true as const }),
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  })
  if (options.onLine !== undefined) {
    const onLine = options.onLine
    const forward = async () => {
      for await (const line of child.iterable({ from: 'all', preserveNewlines: false })) onLine(String(line))
    }
    await forward().catch(() => undefined) // the result below says what went wrong
  }
  const result = await child
  const stdout = typeof result.stdout === 'string' ? result.stdout : ''
  const stderr = typeof result.stderr === 'string' ? result.stderr : ''
  if (result.failed) {
    throw new CommandError(
      argv,
      result.exitCode ?? null,
      result.signal ?? null,
      { stdout, stderr },
      failureReason(result, timeoutMs),
    )
  }
  return { stdout, stderr }
}

function failureReason(
  result: {
    timedOut?: boolean
    isCanceled?: boolean
    exitCode?: number | undefined
    signal?: string | undefined
    originalMessage?: string | undefined
  },
  timeoutMs: number,
): string {
  if (result.timedOut) return `did not finish within ${timeoutMs} ms`
  if (result.isCanceled) return 'was cancelled'
  if (result.signal !== undefined) return `was killed by ${result.signal}`
  if (result.exitCode !== undefined) return `exited with code ${result.exitCode}`
  return `could not be started (${result.originalMessage ?? 'unknown cause'})`
}
