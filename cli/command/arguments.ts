import { open } from 'node:fs/promises'
import { generatedIdPattern, pathIdPattern } from '@berth/contract/ids.ts'
import { InvalidArgumentError } from 'commander'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'

/** A parser of whole numbers in a range. */
export function integer(limits: { minimum: number; maximum: number }): (text: string) => number {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= limits.minimum && value <= limits.maximum)) {
      throw new InvalidArgumentError(`It must be a whole number from ${limits.minimum} to ${limits.maximum}.`)
    }
    return value
  }
}

/** Seconds that a command may wait. */
export const timeoutSeconds = integer({ minimum: 0, maximum: 86_400 })

/** The id of a resource, as it may stand in a path. */
export function resourceId(text: string): string {
  if (!new RegExp(pathIdPattern).test(text)) {
    throw new InvalidArgumentError('It must be an id: a-z, 0-9, "-" and ".", at most 63 characters.')
  }
  return text
}

const namePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** A person's name for a resource (RFC 1123 label). */
export function resourceName(text: string): string {
  if (!namePattern.test(text)) {
    throw new InvalidArgumentError('It must be a name: a-z, 0-9 and "-", at most 63 characters.')
  }
  return text
}

/** The name or the id of an instance. */
export function instanceReference(text: string): string {
  if (!namePattern.test(text)) {
    throw new InvalidArgumentError('It must be a name (a-z, 0-9 and "-") or an id (inst-…).')
  }
  return text
}

/** The name or the id of a resource. */
export function nameOrId(text: string): string {
  if (!namePattern.test(text)) throw new InvalidArgumentError('It must be a name (a-z, 0-9 and "-") or an id.')
  return text
}

/** Whether an instance is referred to by its id. */
export function isInstanceId(reference: string): boolean {
  return new RegExp(generatedIdPattern('inst')).test(reference)
}

/** Add another value of an option that may be repeated; the same value twice counts once. */
export function repeated(value: string, previous: readonly string[] | undefined): string[] {
  return [...new Set([...(previous ?? []), value])]
}

const maxLabels = 64

/** The key of a label. */
export function labelKey(text: string): string {
  if (!/^[A-Za-z0-9._/-]{1,63}$/.test(text)) {
    throw new InvalidArgumentError('It must be the key of a label: A-Z, a-z, 0-9 and "._/-", at most 63 characters.')
  }
  return text
}

/** An entity tag; its quotes may be left out, as shells take them away. */
export function etag(text: string): string {
  if (text === '*') return text
  const match = /^"?([!#-~]{1,255}?)"?$/.exec(text)
  if (match === null) throw new InvalidArgumentError('It must be an ETag, as show --etag prints it.')
  return `"${match[1]}"`
}

/** Ids of resources of an option that may be repeated. */
export const resourceIds = (text: string, previous?: string[]) => repeated(resourceId(text), previous)

/** Add a label `key=value` of an option that may be repeated. */
export function label(text: string, previous: Record<string, string> | undefined): Record<string, string> {
  const match = /^([A-Za-z0-9._/-]{1,63})=([A-Za-z0-9._/-]{0,63})$/.exec(text)
  const [, key, value] = match ?? []
  if (key === undefined || value === undefined) {
    throw new InvalidArgumentError('It must be key=value, both of A-Z, a-z, 0-9 and "._/-", at most 63 characters.')
  }
  const labels = new Map(Object.entries(previous ?? {}))
  if (labels.has(key)) throw new InvalidArgumentError(`The label ${key} is given twice.`)
  if (labels.size === maxLabels) throw new InvalidArgumentError(`There can be ${maxLabels} labels at most.`)
  return Object.fromEntries(labels.set(key, value))
}

/** The content of a file, or of standard input for "-". Throws CliError (usage) when it is larger than `maxBytes`. */
export async function readInput(io: CliIo, file: string, maxBytes: number): Promise<Buffer> {
  if (file === '-') return io.readStdin(maxBytes)
  try {
    await using handle = await open(file)
    // read rather than trust the size of a stat, which is 0 for pipes and devices
    const buffer = Buffer.alloc(maxBytes + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
      length += bytesRead
      if (length > maxBytes) throw new CliError(exitCodes.usage, `${file} has more than ${maxBytes} bytes`)
      if (bytesRead === 0) return buffer.subarray(0, length)
    }
  } catch (error) {
    if (error instanceof CliError) throw error
    const why = error instanceof Error ? error.message : String(error)
    throw new CliError(exitCodes.usage, `${file} cannot be read: ${why}`, { cause: error })
  }
}
