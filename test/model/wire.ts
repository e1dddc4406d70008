import type { Link } from '@berth/agent/report/server-link.ts'
import { Desired, desiredHoldMs, Observed } from '@berth/contract/hosts/agent-protocol.ts'
import { ApiError } from '@berth/server/api-error.ts'
import { readDesired } from '@berth/server/domain/hosts/desired-state.ts'
import { recordConsole, recordObserved } from '@berth/server/domain/hosts/reports.ts'
import { Compile } from 'typebox/compile'
import type { ServerGone, ServerProcess } from './server-process.ts'
import type { TimerScope } from './virtual-time.ts'

/** What becomes of a report: `late` comes when its sender has long given up, perhaps behind a newer one. */
export type ReportFate = 'lost' | 'answer_lost' | 'doubled' | 'late'

/** What becomes of the answer with the desired state. */
export type AnswerFate = 'lost' | 'late'

/** Milliseconds: a way to the server or back, and how much longer what is late takes. */
const hopMs = 1
const lateMs = 9000

const desiredSchema = Compile(Desired)
const observedSchema = Compile(Observed)

export interface WireEvents {
  /** A report was stored. */
  accepted(hostId: string, observed: Observed): void
  /** Something happened that must not. */
  violation(what: string): void
}

/** What lies between a host and the server; it loses, doubles and holds back what it is told to. */
export class Wire {
  /** Nothing passes. */
  cut = false
  /** Whether serial output passes. */
  console = true
  readonly reportFates: ReportFate[] = []
  readonly answerFates: AnswerFate[] = []
  readonly #hostId: string
  readonly #server: ServerProcess
  readonly #timers: TimerScope
  readonly #events: WireEvents

  constructor(hostId: string, server: ServerProcess, timers: TimerScope, events: WireEvents) {
    this.#hostId = hostId
    this.#server = server
    this.#timers = timers
    this.#events = events
  }

  /** The calls of one agent; they come to nothing when its timers have ended. */
  connect(timers: TimerScope): Link {
    const hop = (ms = hopMs) => new Promise<void>((resolve) => timers.after(ms, resolve))
    const pass = () => {
      if (this.cut) throw new Error('the connection was reset')
    }
    return {
      desired: async (since) => {
        await hop()
        pass()
        const answer = await this.#readDesired(since, timers)
        const fate = answer === null ? undefined : this.answerFates.shift()
        await hop(fate === 'late' ? lateMs : hopMs)
        pass()
        if (fate === 'lost') throw new Error('the connection was reset')
        return answer
      },
      report: async (observed) => {
        const message: Observed = JSON.parse(JSON.stringify(observed))
        await hop()
        pass()
        const fate = this.reportFates.shift()
        if (fate === 'lost') throw new Error('the connection was reset')
        if (fate === 'late') {
          this.#timers.after(lateMs, () => void this.deliver(message).catch(() => undefined))
          throw new Error('the time is over')
        }
        if (fate === 'doubled') this.#timers.after(hopMs, () => void this.deliver(message).catch(() => undefined))
        await this.deliver(message)
        await hop()
        if (fate === 'answer_lost') throw new Error('the connection was reset')
      },
      console: async (instanceId, offset, data) => {
        await hop()
        pass()
        if (!this.console) throw new Error('the connection was reset')
        const chunk = { instance_id: instanceId, offset, data: data.toString('base64') }
        const [next = null] = await this.#server
          .call((ctx) => recordConsole(ctx, this.#hostId, [chunk]))
          .catch((error) => this.#refused(error, []))
        await hop()
        if (next === null) throw new Error('the server does not know the instance')
        return next
      },
    }
  }

  /** Give the server a report. Rejects when it is refused or the server is gone. */
  async deliver(observed: Observed): Promise<void> {
    if (!observedSchema.Check(observed)) this.#events.violation('a report does not keep to its schema')
    await this.#server
      .call((ctx) => recordObserved(ctx, this.#hostId, observed))
      .catch((error) => this.#refused(error, ['stale_report']))
    this.#events.accepted(this.#hostId, observed)
  }

  async #readDesired(since: number, timers: TimerScope): Promise<Desired | null> {
    const over = new AbortController()
    const endWaiting = timers.after(desiredHoldMs, () => over.abort())
    const answer = await this.#server.waitingCall((ctx, gone) =>
      readDesired(ctx, this.#hostId, { since, holdMs: desiredHoldMs, signal: AbortSignal.any([gone, over.signal]) }),
    )
    endWaiting()
    if (answer === null) return null
    const message: Desired = JSON.parse(JSON.stringify(answer))
    if (!desiredSchema.Check(message)) this.#events.violation('a desired state does not keep to its schema')
    return message
  }

  #refused(error: ServerGone | unknown, expected: readonly string[]): never {
    if (error instanceof ApiError && !expected.includes(error.code)) {
      this.#events.violation(`the server refused its own host: ${error.code}: ${error.message}`)
    }
    throw error
  }
}
