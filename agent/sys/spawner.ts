import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { childEnvironment } from './child-environment.ts'

/** A command as the spawner is asked for it. */
export interface SpawnRequest {
  argv: readonly string[]
  env: NodeJS.ProcessEnv
  /** Empty: where we are when the spawner starts. */
  cwd: string
  /**
   * Of regular files that we have open: they are opened anew in the same way (with their own position) and are the
   * command's 3, 4, … A detached one has the first as both of its outputs, and the others as 3, 4, …
   */
  descriptors: readonly number[]
  /** Its standard input is a pipe; else it is empty. */
  input: boolean
  /** In a session of its own, without pipes to us: it outlives us. */
  detached: boolean
}

/** What becomes of a command. `started` may be left out when it was killed before. */
export interface SpawnListener {
  started?(pid: number): void
  output?(stream: 'stdout' | 'stderr', data: Buffer): void
  /** It ended and all that it wrote was given; of one that was killed, all that there was. */
  ended(how: { exitCode: number | null; signal: string | null }): void
  /** It could not be started, or what became of it will never be known. */
  failed(why: string): void
}

/** The hands on a command that was asked for; without effect once it has ended. */
export interface Spawned {
  write(data: Buffer): void
  endInput(): void
  /** Send a signal to it and all of its process group; to a detached one alone. */
  kill(signal: NodeJS.Signals): void
}

interface Running {
  listener: SpawnListener
  detached: boolean
  /** Null until it is started. */
  pid: number | null
}

const program = join(import.meta.dirname, 'spawner.pl')

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/**
 * Starts commands by way of a small process, spawner.pl, that is started with the first and ends with us: a fork copies
 * the page tables of who forks, so a command started by this process itself takes the longer the more memory it has
 * (docs/decisions/0037).
 *
 * Both ways go frames: length (32 bits, big-endian, of the rest), type (a letter), number of the command (32 bits), body. To it:
 * `S` start, `I` input, `E` end of the input, `K` kill (signal). From it: `P` started (pid), `O` and `R` what was written
 * to stdout and stderr, `X` ended (exit code, signal), `F` could not be started (why).
 *
 * When it ends by itself, the commands that it had started are killed and reported as failed, for their callers to try
 * again, and the next command starts another. Detached ones live on, unobserved.
 */
export class Spawner {
  #child: ChildProcessByStdio<Writable, Readable, null> | null = null
  #received: Buffer = Buffer.alloc(0)
  readonly #running = new Map<number, Running>()
  #last = 0

  /** Start a command. Its listener is told nothing before this returns. Throws when a text has a NUL in it. */
  spawn(request: SpawnRequest, listener: SpawnListener): Spawned {
    const asked = renderRequest(request)
    const id = ++this.#last % 2 ** 32
    const child = this.#ensureChild()
    this.#running.set(id, { listener, detached: request.detached, pid: null })
    this.#waitAsNeeded()
    const send = (type: string, body: Buffer) => {
      if (this.#running.has(id) && this.#child === child) child.stdin.write(frame(type, id, body))
    }
    send('S', asked)
    return {
      write: (data) => send('I', data),
      endInput: () => send('E', Buffer.alloc(0)),
      kill: (signal) => send('K', Buffer.from([constants.signals[signal]])),
    }
  }

  #ensureChild() {
    if (this.#child !== null) return this.#child
    // a session of its own: what a terminal sends to us is ours to act on. There are words for perl in our environment
    const options = { detached: true, env: childEnvironment() } as const
    const child = spawn('/usr/bin/perl', [program], { ...options, stdio: ['pipe', 'pipe', 'inherit'] })
    this.#child = child
    this.#received = Buffer.alloc(0)
    const lost = (why: string) => {
      if (this.#child === child) this.#lose(why)
    }
    child.once('error', (error) => lost(error.message))
    child.once('close', (code, signal) => lost(`it ended with ${signal ?? `exit code ${code}`}`))
    child.stdin.on('error', () => undefined) // how it ended says more
    child.stdout.on('data', (data: Buffer) => this.#read(data))
    return child
  }

  #read(data: Buffer): void {
    let rest = this.#received.length === 0 ? data : Buffer.concat([this.#received, data])
    while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE()) {
      const end = 4 + rest.readUInt32BE()
      this.#tell(rest.toString('latin1', 4, 5), rest.readUInt32BE(5), rest.subarray(9, end))
      rest = rest.subarray(end)
    }
    this.#received = Buffer.from(rest) // a copy: a few bytes would keep the whole chunk
  }

  #tell(type: string, id: number, body: Buffer): void {
    const running = this.#running.get(id)
    if (running === undefined) return
    const { listener } = running
    if (type === 'P') {
      running.pid = body.readUInt32BE()
      this.#waitAsNeeded()
      listener.started?.(running.pid)
    } else if (type === 'O' || type === 'R') listener.output?.(type === 'O' ? 'stdout' : 'stderr', body)
    else {
      this.#running.delete(id)
      this.#waitAsNeeded()
      if (type === 'F') listener.failed(body.toString().trim())
      else {
        const signal = body[1] === 0 ? null : (signalNames.get(body[1] ?? 0) ?? `signal ${body[1]}`)
        listener.ended({ exitCode: signal === null ? (body[0] ?? null) : null, signal })
      }
    }
  }

  #lose(why: string): void {
    this.#child = null
    const running = [...this.#running.values()]
    this.#running.clear()
    for (const { detached, pid } of running) {
      if (!detached && pid !== null) killGroup(pid)
    }
    for (const { listener } of running) listener.failed(`the process that starts commands is gone: ${why}`)
  }

  /** This process does not end by itself while a command runs or is to be started. */
  #waitAsNeeded(): void {
    const child = this.#child
    if (child === null) return
    const needed = [...this.#running.values()].some(({ detached, pid }) => !detached || pid === null)
    if (needed) child.ref()
    else child.unref()
    for (const stream of [child.stdin, child.stdout]) setWaitedFor(stream, needed)
  }
}

/** The pipes of a child are sockets, whatever their types say. */
function setWaitedFor(stream: Readable | Writable, waitedFor: boolean): void {
  const { ref, unref } = Object(stream) as { ref?: () => void; unref?: () => void }
  ;(waitedFor ? ref : unref)?.call(stream)
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // it has ended
  }
}

function frame(type: string, id: number, body: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUInt32BE(5 + body.length)
  head.write(type, 4, 'latin1')
  head.writeUInt32BE(id, 5)
  return Buffer.concat([head, body])
}

function renderRequest({ argv, env, cwd, descriptors, input, detached }: SpawnRequest): Buffer {
  const variables = Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [name, value]))
  return Buffer.concat([
    Buffer.from([Number(detached), Number(input)]),
    text(cwd),
    counted(Buffer.concat(argv.map(text))),
    counted(Buffer.concat(variables.map(text))),
    counted(Buffer.concat(descriptors.map(uint32))),
  ])
}

/** The kernel ends each of them at a NUL: what came after it would be cut off unseen. */
function text(value: string): Buffer {
  if (value.includes('\0')) throw new TypeError(`a NUL in ${JSON.stringify(value.slice(0, 100))}`)
  return counted(Buffer.from(value))
}

function counted(bytes: Buffer): Buffer {
  return Buffer.concat([uint32(bytes.length), bytes])
}

function uint32(number: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(number)
  return bytes
}

/** The spawner of this process. */
export const spawner = new Spawner()
