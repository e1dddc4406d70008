import { writeSync } from 'node:fs'

/** Standard error as a place for log lines. It may be a file on a disk that is full: lines are lost then, nothing else. */
export function standardError(descriptor = 2): { write(line: string): void } {
  let lost = 0
  /** The last line was written in part: what follows begins a line of its own. */
  let torn = false
  const put = (text: string): boolean => {
    const bytes = Buffer.from(torn ? `\n${text}` : text)
    let written = 0
    try {
      while (written < bytes.length) written += writeSync(descriptor, bytes, written)
      torn = false
      return true
    } catch {
      torn ||= written > 0 // full, or a reader that has gone or does not keep up
      return false
    }
  }
  return {
    write(line) {
      if (
        lost > 0 &&
        !put(`${JSON.stringify({ level: 40, time: Date.now(), msg: `${lost} log lines were lost` })}\n`)
      ) {
        lost++
        return
      }
      lost = put(line) ? 0 : 1
    },
  }
}
