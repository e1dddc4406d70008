import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SerialSegments } from './serial-segments.ts'

const mib = 1024 * 1024
let directory: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-segments-'))
})

afterEach(() => rm(directory, { recursive: true }))

async function filled(...pieces: string[]): Promise<SerialSegments> {
  const segments = await SerialSegments.open(directory)
  await segments.begin(0, 0)
  for (const piece of pieces) await segments.append(Buffer.from(piece))
  return segments
}

async function whole(segments: SerialSegments): Promise<string> {
  const pieces: Buffer[] = []
  for (let position = 0; ; ) {
    const { offset, data } = await segments.read(position, 64 * 1024)
    if (data.length === 0) return Buffer.concat(pieces).toString()
    pieces.push(data)
    position = offset + data.length
  }
}

test('what was appended is read again, also by the next agent, which knows how far the spool was taken over', async () => {
  await filled('Linux version 6.1\n', 'login: ')
  const next = await SerialSegments.open(directory)
  expect(await whole(next)).toBe('Linux version 6.1\nlogin: ')
  expect({ end: next.end, taken: next.takenOf(0) }).toEqual({ end: 25, taken: 25 })
})

test('the oldest go when all are more than 16 MiB, and positions stay what they are', async () => {
  const segments = await filled()
  const piece = Buffer.alloc(mib / 2, 'x')
  for (let at = 0; at < 90; at++) await segments.append(piece)
  await segments.append(Buffer.from('the end'))
  expect(segments.end).toBe(45 * mib + 7)
  const kept = (await whole(segments)).length
  expect(kept).toBeGreaterThan(8 * mib)
  expect(kept).toBeLessThanOrEqual(16 * mib)
  const { offset, data } = await segments.read(45 * mib, 100)
  expect({ offset, text: data.toString() }).toEqual({ offset: 45 * mib, text: 'the end' })
  const next = await SerialSegments.open(directory)
  expect({ end: next.end, taken: next.takenOf(0) }).toEqual({ end: segments.end, taken: segments.end })
})

test('a note stands in the log and not in the spool, and a reader is led over the gap before it', async () => {
  const segments = await filled('before ')
  await segments.begin(1000, 7, '[note] ')
  await segments.append(Buffer.from('after'))
  expect(await segments.read(3, 100)).toEqual({ offset: 3, data: Buffer.from('ore ') })
  expect(await segments.read(7, 100)).toEqual({ offset: 1000, data: Buffer.from('[note] after') })
  expect((await SerialSegments.open(directory)).takenOf(0)).toBe(12)
})

test('an end that was lost with the power of the host is taken over again', async () => {
  await filled('one two three')
  const [name = ''] = await readdir(directory)
  await truncate(join(directory, name), 7)
  const next = await SerialSegments.open(directory)
  expect({ end: next.end, taken: next.takenOf(0) }).toEqual({ end: 7, taken: 7 })
  await next.append(Buffer.from(' three'))
  expect(await whole(next)).toBe('one two three')
})

test('nothing of a spool is taken that begins behind the last segment', async () => {
  const segments = await filled('first run')
  expect(segments.takenOf(9)).toBeNull()
})

test('notes of hosts that restart again and again do not gather', async () => {
  const segments = await filled('x')
  for (let at = 1; at <= 40; at++) await segments.begin(at * 1000, 0, `restart ${at}\n`)
  expect((await readdir(directory)).length).toBeLessThanOrEqual(16)
  expect(await whole(segments)).toContain('restart 40')
})

test('other files beside them are none, and neither is a segment that was not finished', async () => {
  await filled('text')
  for (const name of ['serial.partial', 'serial.log', 'serial-5.log', 'disk.qcow2']) {
    await writeFile(join(directory, name), 'other')
  }
  expect(await whole(await SerialSegments.open(directory))).toBe('text')
})
