import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseReadyLine, type ReadyMarker, SerialScanner } from './ready-marker.ts'

const marker: ReadyMarker = { boot_id: 'b-1', user_data: 'failed', exit_code: 3, output_tail: 'no\nsuch file ü' }
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64')
const line = `BERTH-READY 1 ${encode(marker)}`

/** Everything found in output that comes in these pieces. */
function scanAll(pieces: readonly Buffer[]): { kernel: boolean; found: ReadyMarker[] } {
  const scanner = new SerialScanner()
  const results = pieces.map((piece) => scanner.scan(piece))
  return {
    kernel: results.some((result) => result.kernel),
    found: results.map((result) => result.ready).filter((ready) => ready !== null),
  }
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const sorted = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end))
}

describe('in output that comes in pieces', () => {
  const cuts = fc.array(fc.nat(), { maxLength: 30 })
  const noise = fc.array(
    fc.stringMatching(/^[ -~]{0,60}$/).filter((text) => !text.includes('BERTH-READY')),
    { maxLength: 8 },
  )

  test('the marker and the kernel are found once, wherever it is cut', () => {
    fc.assert(
      fc.property(noise, noise, cuts, fc.constantFrom('\n', '\r\n'), (before, after, where, end) => {
        const text = [...before, '[    0.000000] Linux version 6.12', line, ...after, ''].join(end)
        expect(scanAll(split(Buffer.from(text), where))).toEqual({ kernel: true, found: [marker] })
      }),
      { numRuns: 300 },
    )
  })

  test('byte by byte too', () => {
    const bytes = [...Buffer.from(`Linux version 6\r\n${line}\r\n`)].map((byte) => Buffer.from([byte]))
    expect(scanAll(bytes)).toEqual({ kernel: true, found: [marker] })
  })

  test('no bytes make it throw, or find what is not there', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), (pieces) => {
        expect(scanAll(pieces.map((piece) => Buffer.from(piece))).found).toEqual([])
      }),
      { numRuns: 200 },
    )
  })

  test('the marker is not taken before its line has ended', () => {
    const scanner = new SerialScanner()
    expect(scanner.scan(Buffer.from(line)).ready).toBeNull()
    expect(scanner.scan(Buffer.from('\n')).ready).toEqual(marker)
  })

  test('of two markers in one piece the last counts', () => {
    const second = { ...marker, boot_id: 'b-2' }
    expect(scanAll([Buffer.from(`${line}\nBERTH-READY 1 ${encode(second)}\n`)]).found).toEqual([second])
  })
})

describe('lines that are too long', () => {
  test('are skipped, and the next line is read', () => {
    for (const size of [33_000, 200_000]) {
      const text = `${'x'.repeat(size)} ${line}\n${line}\n`
      for (const pieceBytes of [1000, 65_536]) {
        const bytes = Buffer.from(text)
        const pieces = Array.from({ length: Math.ceil(bytes.length / pieceBytes) }, (_, i) =>
          bytes.subarray(i * pieceBytes, (i + 1) * pieceBytes),
        )
        expect(scanAll(pieces).found).toEqual([marker])
      }
    }
  })

  test('the largest marker is not too long', () => {
    // as the script writes it: in ASCII, six characters for each byte
    const large = { ...marker, output_tail: '\u0001'.repeat(2048), cause: 'ignored', warnings: '\u0001'.repeat(1024) }
    expect(JSON.stringify(large).length).toBeGreaterThan(6 * 3072)
    expect(scanAll([Buffer.from(`BERTH-READY 1 ${encode(large)}\n`)]).found).toEqual([large])
  })

  test('a guest that writes a megabyte without a line break costs little', () => {
    const scanner = new SerialScanner()
    const before = process.cpuUsage()
    for (let i = 0; i < 16_384; i++) scanner.scan(Buffer.alloc(64, 'x'))
    expect(process.cpuUsage(before).user).toBeLessThan(2_000_000)
    expect(scanner.scan(Buffer.from(`\n${line}\n`)).ready).toEqual(marker)
  })
})

describe('one line', () => {
  test.each([line, `${line}\r`, `\u001b[0m${line}`, `login: ${line}  `])('is read: %j', (text) => {
    expect(parseReadyLine(text)).toEqual(marker)
  })

  test.each([
    '',
    'BERTH-READY',
    'BERTH-READY 1 ',
    `BERTH-READY 2 ${encode(marker)}`,
    `BERTH-READY 1 ${encode(marker)} trailing`,
    'BERTH-READY 1 !!!!',
    'BERTH-READY 1 bm8ganNvbg==',
    `BERTH-READY 1 ${encode(null)}`,
    `BERTH-READY 1 ${encode([])}`,
    `BERTH-READY 1 ${encode({ ...marker, user_data: 'maybe' })}`,
    `BERTH-READY 1 ${encode({ ...marker, exit_code: '3' })}`,
    `BERTH-READY 1 ${encode({ ...marker, exit_code: 0.5 })}`,
    `BERTH-READY 1 ${encode({ ...marker, boot_id: 'x'.repeat(65) })}`,
    `BERTH-READY 1 ${encode({ ...marker, output_tail: 'x'.repeat(4097) })}`,
    `BERTH-READY 1 ${encode({ ...marker, cause: 'x'.repeat(33) })}`,
    `BERTH-READY 1 ${encode({ ...marker, warnings: 'x'.repeat(2049) })}`,
    `BERTH-READY 1 ${encode({ ...marker, warnings: ['x'] })}`,
    `BERTH-READY 1 ${encode({ boot_id: 'b' })}`,
    `BERTH-READY 1 ${encode(marker).slice(0, -8)}`,
  ])('is no marker: %j', (text) => {
    expect(parseReadyLine(text)).toBeNull()
  })
})
