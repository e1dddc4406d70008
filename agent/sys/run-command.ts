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
  /** The whole environment. Ours by default. */
  env?: NodeJS.ProcessEnv
  /** Descriptors of ours that it has as 3, 4, … */
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

/**
 * Run a command to its end and give its output. Never a shell: `argv[0]` is looked up in PATH, the rest are passed
 * as they are. Throws CommandError when it cannot be started, exits with another code than 0, is killed or times out,
 * and does not start it when its signal is aborted already.
 */
export async function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandOutput> {
  if (argv.length === 0) throw new TypeError('runCommand needs at least the name of a command')
  const { timeoutMs = 30_000, maxOutputBytes = 8 * 1024 * 1024 } = options
  if (options.signal?.aborted) throw new CommandError(argv, null, null, { stdout: '', stderr: '' }, 'was cancelled')
  const { through = [], input, fds = [] } = options
  const [file = '', ...args] = [...through, ...argv]
  const stdin = input === undefined ? 'ignore' : 'pipe'
  const passed = fds.map((fd) => fd as 3) // execa passes any descriptor on; its types know only the small ones
  const child = execa(file, args, {
    reject: false,
    timeout: timeoutMs,
    forceKillAfterDelay: 2000,
    maxBuffer: maxOutputBytes,
    stripFinalNewline: false,
    ...(options.onLine === undefined ? {} : { all: true as const }),
    stdio: [stdin, 'pipe', 'pipe', ...passed],
    ...(input === undefined ? {} : { input }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env, extendEnv: false }),
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
      failureReason(result, timeoutMs, maxOutputBytes),
    )
  }
  return { stdout, stderr }
}

function failureReason(
  result: {
    timedOut?: boolean
    isCanceled?: boolean
    isMaxBuffer?: boolean
    exitCode?: number | undefined
    signal?: string | undefined
    originalMessage?: string | undefined
  },
  timeoutMs: number,
  maxOutputBytes: number,
): string {
  if (result.timedOut) return `did not finish within ${timeoutMs} ms`
  if (result.isCanceled) return 'was cancelled'
  if (result.isMaxBuffer) return `wrote more than ${maxOutputBytes} bytes`
  if (result.signal !== undefined) return `was killed by ${result.signal}`
  if (result.exitCode !== undefined) return `exited with code ${result.exitCode}`
  return `could not be started (${result.originalMessage ?? 'unknown cause'})`
}
