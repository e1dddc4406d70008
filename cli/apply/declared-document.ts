import { isDeepStrictEqual } from 'node:util'
import { CliError, exitCodes } from '../exit-codes.ts'
import { ProblemError } from '../problem.ts'

/** One document of a YAML or JSON file, which knows where its parts stand. */
export interface DeclaredDocument {
  file: string
  /** Line of its first character, from 1. */
  line: number
  value: Record<string, unknown>
  /** Line of what a JSON pointer (RFC 6901) names, or of the nearest thing around it that is there. */
  lineOf: (pointer: string) => number
}

/** What messages call a file. */
export function nameOf(file: string): string {
  return file === '-' ? 'standard input' : file
}

/**
 * A refusal of the server whose pointers are lines of the file that the request was made from. `body` is what was sent:
 * a fault of something else than the file says is left as it is.
 */
export function inTermsOfFile(error: unknown, document: DeclaredDocument, body: object): unknown {
  if (!(error instanceof ProblemError)) return error
  return new ProblemError(
    error.problem,
    error.problem.errors.map(({ pointer, message }) => {
      const fromFile = isDeepStrictEqual(valueAt(document.value, pointer), valueAt(body, pointer))
      return `${fromFile ? `${document.file}:${document.lineOf(pointer)}: ` : ''}${pointer}: ${message}`
    }),
  )
}

/** A fault of a file, at a line of it. */
export function fileFault(document: DeclaredDocument, pointer: string, message: string): CliError {
  return fault(`${document.file}:${document.lineOf(pointer)}`, pointer === '' ? message : `${pointer}: ${message}`)
}

/** Whether a value is an object with fields. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What is wrong at a place of a file, a usage error. */
export function fault(where: string, message: string): CliError {
  return new CliError(exitCodes.usage, `${where}: ${message}`)
}

function valueAt(value: unknown, pointer: string): unknown {
  return tokensOf(pointer).reduce<unknown>(
    (at, token) =>
      typeof at === 'object' && at !== null && Object.hasOwn(at, token) ? Reflect.get(at, token) : undefined,
    value,
  )
}

/** The keys that a JSON pointer goes through. */
export function tokensOf(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}
