import Type, { type Static } from 'typebox'
import Value from 'typebox/value'

/**
 * What a guest says of its first boot: `BERTH-READY 1 <base64 JSON>` on a serial line of its own, and the same JSON to the
 * metadata service.
 *
 * Its script may be older or newer than this agent. What is new comes as a field that may be absent, never as another
 * value of `user_data`: fields and causes that are not known here are passed over.
 */
const ReadyMarker = Type.Object({
  boot_id: Type.String({ maxLength: 64 }),
  user_data: Type.Union([Type.Literal('ok'), Type.Literal('failed'), Type.Literal('none')]),
  exit_code: Type.Union([Type.Integer(), Type.Null()]),
  output_tail: Type.String({ maxLength: 4096 }),
  /** Why it failed: `ignored` when the user data, or a part of it, was not understood. */
  cause: Type.Optional(Type.String({ maxLength: 32 })),
  /** What was warned of while it went well. */
  warnings: Type.Optional(Type.String({ maxLength: 2048 })),
})
export type ReadyMarker = Static<typeof ReadyMarker>

/** Longest line that is looked at: base64 of the largest marker. A guest may write longer ones; they are skipped. */
const maxLineBytes = 32 * 1024

/**
 * Finds the kernel's first words and the ready marker in serial output that comes in pieces. What a guest writes is not
 * trusted: lines are bounded and a marker that does not parse is no marker.
 */
export class SerialScanner {
  #line: Buffer = Buffer.alloc(0)
  #skipping = false

  /** What the next piece of output holds; both null or false when nothing is in it. */
  scan(chunk: Buffer): { kernel: boolean; ready: ReadyMarker | null } {
    let kernel = false
    let ready: ReadyMarker | null = null
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      const line = this.#take(chunk.subarray(start, end))
      start = end + 1
      if (line === null) continue
      kernel ||= isKernelBanner(line)
      ready = parseReadyLine(line) ?? ready
    }
    this.#keep(chunk.subarray(start))
    // the banner is looked for in the unfinished line too: it is the first a kernel prints
    kernel ||= isKernelBanner(this.#line.toString('latin1'))
    return { kernel, ready }
  }

  #take(rest: Buffer): string | null {
    const skipped = this.#skipping || this.#line.length + rest.length > maxLineBytes
    const line = skipped ? null : Buffer.concat([this.#line, rest]).toString('latin1')
    this.#line = Buffer.alloc(0)
    this.#skipping = false
    return line
  }

  #keep(rest: Buffer): void {
    if (this.#skipping) return
    if (this.#line.length + rest.length > maxLineBytes) {
      this.#skipping = true
      this.#line = Buffer.alloc(0)
    } else {
      this.#line = Buffer.concat([this.#line, rest])
    }
  }
}

/** The marker of a line, or null. Carriage returns and what a terminal left before the marker are ignored. */
export function parseReadyLine(line: string): ReadyMarker | null {
  const base64 = /BERTH-READY 1 ([A-Za-z0-9+/]+={0,2})\s*$/.exec(line)?.[1]
  return base64 === undefined ? null : parseReadyReport(Buffer.from(base64, 'base64'))
}

/** The marker that a guest posts to the metadata service, as JSON; null when it is none. */
export function parseReadyReport(json: Buffer): ReadyMarker | null {
  try {
    const marker: unknown = JSON.parse(json.toString('utf8'))
    return Value.Check(ReadyMarker, marker) ? marker : null
  } catch {
    return null
  }
}

function isKernelBanner(line: string): boolean {
  return line.includes('Linux version ')
}
