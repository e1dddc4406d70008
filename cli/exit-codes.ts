/**
 * What the exit code of `berth` says. 69 and 77 are EX_UNAVAILABLE and EX_NOPERM of sysexits.h; 130 is 128 + SIGINT, as
 * shells have it. `berth ssh` gives the code of the command it ran instead.
 */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 4,
  conflict: 5,
  timeout: 6,
  unreachable: 69,
  needsRoot: 77,
  interrupted: 130,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** A command that cannot go on: the code it ends with, one message, and lines that explain it. */
export class CliError extends Error {
  readonly exitCode: ExitCode
  readonly details: readonly string[]

  constructor(exitCode: ExitCode, message: string, options: { details?: readonly string[]; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'CliError'
    this.exitCode = exitCode
    this.details = options.details ?? []
  }
}

/** A program that was run in place of this one has ended and has said itself what there was to say. */
export class PassedExit extends Error {
  readonly exitCode: number

  constructor(exitCode: number) {
    super(`the command ended with exit code ${exitCode}`)
    this.name = 'PassedExit'
    this.exitCode = exitCode
  }
}
