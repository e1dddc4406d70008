import { EventEmitter } from 'node:events'
import { connect, type Socket } from 'node:net'

/** Longest QMP line that is accepted; QEMU's are far shorter. */
const maxLineBytes = 4 * 1024 * 1024

/** QEMU answered a command with an error. */
export class QmpError extends Error {
  readonly errorClass: string

  constructor(command: string, errorClass: string, description: string) {
    super(`QMP ${command}: ${description}`)
    this.name = 'QmpError'
    this.errorClass = errorClass
  }
}

export interface QmpEvent {
  event: string
  data: Record<string, unknown>
}

interface Pending {
  command: string
  resolve: (value: unknown) => void
  reject: (error: Error) => void
  timer: NodeJS.Timeout | undefined
}

/**
 * A connection to QEMU's machine protocol (https://www.qemu.org/docs/master/interop/qmp-spec.html). Emits `event` with
 * a QmpEvent and `close` once, when the connection is gone.
 */
export class Qmp extends EventEmitter<{ event: [QmpEvent]; close: [] }> {
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  #nextId = 1
  #buffer = ''
  #greeted: () => void = () => {}

  private constructor(socket: Socket) {
    super()
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#receive(text))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#closed())
  }

  /**
   * Connect to a QMP socket and agree on capabilities. Throws when nobody answers within `timeoutMs`, or the signal is
   * aborted. The socket serves one client: another one is greeted when the first leaves.
   */
  static async connect(path: string, timeoutMs: number, signal?: AbortSignal): Promise<Qmp> {
    const socket = connect(path)
    const giveUp = () => socket.destroy()
    signal?.addEventListener('abort', giveUp)
    const qmp = new Qmp(socket)
    const greeting = new Promise<void>((resolve) => {
      qmp.#greeted = resolve
    })
    let late: NodeJS.Timeout | undefined
    const failure = new Promise<never>((_resolve, reject) => {
      socket.once('error', reject)
      socket.once('close', () => reject(new Error(`${path} was closed`)))
      late = setTimeout(() => reject(new Error(`${path} did not greet within ${timeoutMs} ms`)), timeoutMs).unref()
    })
    try {
      await Promise.race([greeting, failure])
      await qmp.execute('qmp_capabilities', {}, timeoutMs)
      return qmp
    } catch (error) {
      failure.catch(() => undefined)
      socket.destroy()
      throw error
    } finally {
      clearTimeout(late)
      signal?.removeEventListener('abort', giveUp)
    }
  }

  /**
   * Run a command and give its return value. Throws QmpError, or Error when the connection ends or time runs out. An
   * answer that comes later than that is nobody's: answers are told by their ids.
   */
  execute(command: string, args: Record<string, unknown> = {}, timeoutMs = 10_000): Promise<unknown> {
    if (this.#socket.destroyed) return Promise.reject(new Error(`QMP ${command}: the connection is closed`))
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const id = this.#nextId++
    const timer =
      timeoutMs === Number.POSITIVE_INFINITY
        ? undefined
        : setTimeout(() => {
            this.#pending.delete(id)
            reject(new Error(`QMP ${command}: no answer within ${timeoutMs} ms`))
          }, timeoutMs)
    this.#pending.set(id, { command, resolve, reject, timer })
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    return promise
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(text: string): void {
    this.#buffer += text
    if (this.#buffer.length > maxLineBytes) {
      this.#socket.destroy()
      return
    }
    const lines = this.#buffer.split('\n')
    this.#buffer = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') this.#message(line)
  }

  #message(line: string): void {
    let message: Record<string, unknown>
    try {
      message = JSON.parse(line)
    } catch {
      this.#socket.destroy()
      return
    }
    if ('QMP' in message) {
      this.#greeted()
      return
    }
    if (typeof message.event === 'string') {
      this.emit('event', { event: message.event, data: asObject(message.data) })
      return
    }
    const pending = this.#pending.get(Number(message.id))
    if (pending === undefined) return
    this.#pending.delete(Number(message.id))
    clearTimeout(pending.timer)
    if ('error' in message) {
      const { class: errorClass, desc } = asObject(message.error)
      pending.reject(new QmpError(pending.command, String(errorClass), String(desc)))
    } else {
      pending.resolve(message.return)
    }
  }

  #closed(): void {
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.timer)
      pending.reject(new Error(`QMP ${pending.command}: the connection ended`))
    }
    this.#pending.clear()
    this.emit('close')
  }
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
