import { consoleLogKeptBytes } from '@berth/contract/hosts/agent-protocol.ts'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { systemTimers } from '../sys/timers.ts'
import { ConsoleForwarder } from './forwarder.ts'

const id = 'inst-00000000000000000001'

/** A guest's output from a position on, and a server that keeps what it is given as the real one does. */
class Console {
  output = ''
  start = 0
  skipped: number[] = []
  stored: { offset: number; text: string }[] = []
  elapsedMs = 0
  readonly #ending = new AbortController()
  #round: () => void = () => {}
  readonly forwarder: ConsoleForwarder
  #running: Promise<void> | null = null

  constructor() {
    const chance = {
      random: () => 0,
      timers: {
        ...systemTimers,
        elapsedMs: () => this.elapsedMs,
        // a round begins when the test says so
        after: (_ms: number, then: () => void) => {
          this.#round = then
          return () => {}
        },
      },
    }
    const link = { console: async (_id: string, offset: number, data: Buffer) => this.#store(offset, data) }
    this.forwarder = new ConsoleForwarder(link, new Map([[id, this.#source()]]), chance, pino({ level: 'silent' }))
  }

  get end(): number {
    const last = this.stored.at(-1)
    return last === undefined ? 0 : last.offset + last.text.length
  }

  get text(): string {
    return this.stored.map(({ text }) => text).join('')
  }

  /** Let so much time pass, and have what is new handed over. */
  async round(ms: number): Promise<void> {
    this.elapsedMs += ms
    if (this.#running === null) this.#running = this.forwarder.run(this.#ending.signal)
    else this.#round()
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve))
  }

  async stop(): Promise<void> {
    this.#ending.abort()
    this.#round()
    await this.#running
  }

  #source() {
    const console = this
    return {
      record: { power: 'running' as const },
      serial: {
        get end() {
          return console.start + console.output.length
        },
        read: async (position: number) => {
          const offset = Math.max(position, console.start)
          return { offset, data: Buffer.from(console.output.slice(offset - console.start).slice(0, 64 * 1024)) }
        },
        settled: async () => {},
        skipTo: async (position: number) => {
          console.skipped.push(position)
          console.start = position
          console.output = ''
        },
      },
    }
  }

  async #store(offset: number, data: Buffer): Promise<number> {
    if (offset >= this.end && data.length > 0) this.stored.push({ offset, text: data.toString() })
    return this.end
  }
}

test('a boot arrives whole and at once', async () => {
  const console = new Console()
  console.output = Array.from({ length: 4000 }, (_, line) => `[    0.${line}] a line of the kernel`).join('\n')
  await console.round(0)
  expect(console.text).toBe(console.output)
  await console.stop()
})

test('a guest that writes without end gets 32 KiB a second to the server, and what is left out is counted', async () => {
  const console = new Console()
  const perSecond = 300 * 1024
  for (let second = 0; second < 60; second++) {
    console.output += 'y\n'.repeat(perSecond / 2)
    await console.round(1000)
  }
  const sent = console.text.length
  expect(sent).toBeGreaterThan(60 * 30 * 1024)
  expect(sent).toBeLessThan(consoleLogKeptBytes + 60 * 33 * 1024)
  const leftOut = [...console.text.matchAll(/\[berth: (\d+) bytes of output are left out here\]/g)]
  const missing = leftOut.reduce((sum, [, bytes]) => sum + Number(bytes), 0)
  const output = console.text.replaceAll(/\r\n\[berth: .*\]\r\n/g, '').length
  expect(leftOut.length).toBeGreaterThan(10)
  expect(output + missing).toBe(console.end)
  // once it is still, the end of what it wrote arrives
  for (let second = 0; second < 10; second++) await console.round(1000)
  expect(console.end).toBe(console.output.length)
  await console.stop()
})

test('the rest of what a removed instance wrote is handed over at once', async () => {
  const console = new Console()
  console.output = 'x'.repeat(consoleLogKeptBytes)
  await console.round(0)
  console.output += 'y'.repeat(100_000)
  await console.forwarder.flush(id)
  expect(console.text.endsWith('y'.repeat(100_000))).toBe(true)
  await console.stop()
})

test('a log that is shorter than what the server has goes on behind that', async () => {
  const console = new Console()
  console.stored.push({ offset: 0, text: 'z'.repeat(9000) }) // before the host lost its power
  console.output = 'z'.repeat(5000)
  await console.round(0)
  expect(console.skipped).toEqual([9000])
  console.output = 'Linux version 6.1 once more'
  await console.round(1000)
  expect(console.text.endsWith('Linux version 6.1 once more')).toBe(true)
  await console.stop()
})
