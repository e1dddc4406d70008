import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { inNamespace } from '../namespace.ts'

export type Transport = 'tcp' | 'udp'

/** What came of an attempt: what the other side said, or why there was nothing (`timeout`, or the name of an errno). */
export interface Answer {
  heard?: string
  error?: string
}

/** Seconds for what is expected to come, however busy the machine is. */
const patience = 8

/** Seconds for what is expected not to come. */
const impatience = 0.4

/** A flow that stays open: what a client has of a connection, or of a pair of UDP ports. */
export interface Flow {
  /** Say something and hear the server's answer: the address it saw. */
  ask(options?: { size?: number; expect?: 'answer' | 'nothing' }): Promise<Answer>
  /** What the server said unasked. */
  hear(expect: 'answer' | 'nothing'): Promise<Answer>
  /** Bytes of a segment at most. */
  segmentSize(): Promise<number>
  close(): Promise<void>
}

interface OpenOptions {
  expect?: 'answer' | 'nothing'
  size?: number
  sourcePort?: number
  dontFragment?: boolean
}

/**
 * A process in a network namespace that opens sockets and sends frames as it is told (`peer.py`). `namespace` null is
 * the one of the test itself. Where there are several addresses, each is named, so that UDP is answered from the right one.
 * It is root's unless it has another uid, which has no privileges.
 */
export class Peer {
  readonly #addresses: readonly string[]
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Record<string, unknown>) => void>()
  #next = 0
  #errors = ''
  #ended: string | null = null

  constructor(namespace: string | null, addresses: readonly string[] = ['0.0.0.0'], uid = 0) {
    this.#addresses = addresses
    const prefix = namespace === null ? [] : inNamespace(namespace)
    const [file = '', ...args] = [...prefix, 'python3', `${import.meta.dirname}/peer.py`, String(uid)]
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text
    })
    const end = (why: string) => {
      this.#ended = `${why} ${this.#errors}`
      for (const resolve of this.#waiting.values()) resolve({ error: this.#ended })
      this.#waiting.clear()
    }
    this.#child.once('error', (error) => end(error.message))
    this.#child.once('exit', () => end('the peer has ended'))
    if (this.#child.stdout === null) throw new Error('the peer has no output')
    createInterface(this.#child.stdout).on('line', (line) => {
      const { id, ...answer } = JSON.parse(line) as { id: number } & Record<string, unknown>
      this.#waiting.get(id)?.(answer)
      this.#waiting.delete(id)
    })
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#child.once('exit', () => resolve())
    this.#child.kill('SIGKILL')
    await promise
  }

  #call<T extends object = object>(command: string, args: object): Promise<T & { error?: string }> {
    const id = this.#next++
    const { promise, resolve } = Promise.withResolvers<Record<string, unknown>>()
    if (this.#ended !== null) resolve({ error: this.#ended })
    this.#waiting.set(id, resolve)
    this.#child.stdin?.write(`${JSON.stringify({ id, command, arguments: args })}\n`)
    return promise as Promise<T & { error?: string }>
  }

  /** For what cannot fail but by a fault of the test. */
  async #must<T extends object = object>(command: string, args: object): Promise<T> {
    const answer = await this.#call<T>(command, args)
    if (answer.error !== undefined) throw new Error(`${command} ${JSON.stringify(args)}: ${answer.error}`)
    return answer
  }

  /** Serve at ports: each message is answered with the address it came from. */
  async listen(protocol: Transport, ...ports: number[]): Promise<void> {
    for (const address of this.#addresses) {
      for (const port of ports) await this.#must('listen', { proto: protocol, port, address })
    }
  }

  /** Say something unasked to the last client of a server. */
  async tell(protocol: Transport, port: number): Promise<void> {
    await this.#must('tell', { proto: protocol, port })
  }

  /** Open a flow, say something, and hear the answer; the flow stays open whatever came. */
  async open(
    protocol: Transport,
    to: string,
    port: number,
    { expect = 'answer', size = 1, sourcePort = 0, dontFragment = false }: OpenOptions = {},
  ): Promise<Flow & Answer> {
    const flow = this.#next++
    const args = { flow, proto: protocol, to, port, size, source_port: sourcePort, dont_fragment: dontFragment }
    const answer = await this.#call<Answer>('open_flow', { ...args, timeout: secondsFor(expect) })
    return {
      ...answer,
      ask: ({ size = 1, expect = 'answer' } = {}) => this.#call('ask', { flow, size, timeout: secondsFor(expect) }),
      hear: (expect) => this.#call('hear', { flow, timeout: secondsFor(expect) }),
      segmentSize: async () => (await this.#must<{ bytes: number }>('segment_size', { flow })).bytes,
      close: async () => {
        await this.#must('close', { flow })
      },
    }
  }

  /** The address that a server sees when this one opens a connection and says something. */
  async reaches(protocol: Transport, to: string, port: number, options: OpenOptions = {}): Promise<string> {
    const flow = await this.open(protocol, to, port, options)
    await flow.close()
    return flow.heard ?? `no answer: ${flow.error}`
  }

  /** What comes of an attempt that should come to nothing: `timeout` when every packet of it was dropped. */
  async fails(protocol: Transport, to: string, port: number): Promise<string> {
    const flow = await this.open(protocol, to, port, { expect: 'nothing' })
    await flow.close()
    return flow.error ?? `answered: ${flow.heard}`
  }

  /** Whether an echo request is answered. */
  async pings(to: string): Promise<boolean> {
    return (await this.#call('ping', { to, timeout: patience })).error === undefined
  }

  /** Whether an echo request stays without an answer. */
  async pingFails(to: string): Promise<boolean> {
    return (await this.#call('ping', { to, timeout: impatience })).error !== undefined
  }

  /** Send frames, as they are, from `eth0`. */
  async sendFrames(...frames: Buffer[]): Promise<void> {
    await this.#must('send', { frames: frames.map((frame) => frame.toString('hex')) })
  }

  /** Keep the frames that arrive at `eth0` from now on. */
  async sniff(): Promise<void> {
    await this.#must('sniff', {})
  }

  /** The frames since then, up to one that holds `last`; throws when that does not come. */
  async sniffedUntil(last: string | Buffer): Promise<Buffer[]> {
    const wanted = Buffer.from(last).toString('hex')
    const { frames } = await this.#must<{ frames: string[] }>('sniffed', { wanted, timeout: patience })
    return frames.map((frame) => Buffer.from(frame, 'hex'))
  }

  /** Send a message and give the one that comes back, or null. */
  async query(
    protocol: Transport,
    to: string,
    port: number,
    data: Buffer,
    { expect = 'answer' }: Pick<OpenOptions, 'expect'> = {},
  ): Promise<Buffer | null> {
    const request = { proto: protocol, to, port, data: data.toString('hex'), timeout: secondsFor(expect) }
    const answer = await this.#call<{ data: string }>('query', request)
    return answer.error === undefined ? Buffer.from(answer.data, 'hex') : null
  }

  /** Answer each datagram at a port of an address with the same bytes, behind the first two of the question. */
  async respond(port: number, data: Buffer, address: string): Promise<void> {
    await this.#must('respond', { port, data: data.toString('hex'), address })
  }

  /** The datagrams that came there. */
  async asked(port: number): Promise<Buffer[]> {
    const { asked } = await this.#must<{ asked: string[] }>('asked', { port })
    return asked.map((each) => Buffer.from(each, 'hex'))
  }

  /** Send a datagram from that many ports and keep them; gives how many were answered. */
  async flood(to: string, port: number, count: number): Promise<number> {
    return (await this.#must<{ answered: number }>('flood', { to, port, count })).answered
  }

  /** Bits a second that one connection brings from here to another peer. */
  async throughput(to: Peer, address: string, port: number, seconds: number): Promise<number> {
    await to.#must('sink', { port })
    await this.#must('pump', { to: address, port, seconds })
    const sunk = await to.#must<{ bits_per_second: number }>('sunk', { port, timeout: 30 })
    return sunk.bits_per_second
  }

  /** Seconds of each exchange of a byte and its answer on one connection to a server (`listen`). */
  async roundTrips(to: string, port: number, count: number): Promise<number[]> {
    return (await this.#must<{ seconds: number[] }>('round_trips', { to, port, count })).seconds
  }
}

function secondsFor(expect: 'answer' | 'nothing'): number {
  return expect === 'answer' ? patience : impatience
}
