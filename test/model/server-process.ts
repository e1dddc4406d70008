import { AsyncLocalStorage } from 'node:async_hooks'
import { defaultSettings } from '@berth/server/config.ts'
import type { Context } from '@berth/server/context.ts'
import { type Controller, startController } from '@berth/server/controllers/driver.ts'
import { placementPass } from '@berth/server/controllers/placement.ts'
import { retentionPass } from '@berth/server/controllers/retention.ts'
import { registerHosts } from '@berth/server/domain/hosts/reports.ts'
import type { Store } from '@berth/server/store/store.ts'
import type { Answer, Api, Apis, Sent } from './api.ts'
import type { DatabaseFile, Databases, OpenDatabase } from './databases.ts'
import { type Catalogues, contextOn, hostIds, type Resources, silent } from './fixtures.ts'
import type { Observer } from './tables.ts'
import type { TimerScope, VirtualTime, WallClock } from './virtual-time.ts'

/** The caller's connection broke: what was asked for may have happened or not. */
export class ServerGone extends Error {}

/** Short enough that a schedule can outlive them; milliseconds. */
export const settings: Context['settings'] = {
  ...defaultSettings,
  deadlinesMs: {
    'instance.create': 120_000,
    'instance.start': 60_000,
    'instance.stop': 40_000,
    'instance.reboot': 60_000,
    'instance.delete': 60_000,
  },
  tombstoneMs: 600_000,
}

/** Who waits for an answer. */
interface Caller {
  fail: (gone: ServerGone) => void
  /** Ends with its connection. */
  connection: AbortController
}

interface Run {
  database: OpenDatabase
  api: Api
  ctx: Context
  stopListening: () => void
  timers: TimerScope
  controllers: Controller[]
  ending: AbortController
}

/**
 * The control plane: real HTTP layer for clients, domain for hosts, store and controllers. A crash leaves to the next run what SQLite had
 * given to the operating system by then, and nothing else.
 */
export class ServerProcess {
  readonly #time: VirtualTime
  readonly #clock: WallClock
  readonly #databases: Databases
  readonly #apis: Apis
  readonly #catalogues: Catalogues
  readonly #timers: TimerScope
  readonly #waiting = new Set<Caller>()
  /** Whose call it is that the server works on. */
  readonly #callers = new AsyncLocalStorage<Caller>()
  readonly #closing: Promise<unknown>[] = []
  #database: DatabaseFile | null = null
  #run: Run | null = null
  #busy = 0
  #crashes = 0
  #commitsToCrash: { left: number; downMs: number } | null = null
  #answerToCrash: { downMs: number } | null = null
  #wakesToLose = 0
  #commits = 0

  constructor(time: VirtualTime, clock: WallClock, resources: Resources) {
    this.#time = time
    this.#clock = clock
    this.#databases = resources.databases
    this.#apis = resources.apis
    this.#catalogues = resources.catalogues
    this.#timers = time.scope()
  }

  get running(): boolean {
    return this.#run !== null
  }

  /** Whether it works on something that does not wait for an event. */
  get busy(): boolean {
    return this.#busy > 0
  }

  /** Rises with each commit and each start. */
  get commits(): number {
    return this.#commits
  }

  get crashes(): number {
    return this.#crashes
  }

  /** What is stored; also while the server is down. */
  get stored(): Observer {
    if (this.#database === null) throw new Error('the server was never started')
    return this.#database.observer
  }

  /** Start as `startServer` does: store, hosts, controllers. */
  async start(): Promise<void> {
    this.#busy++
    const left = this.#database
    const database = await (left === null ? this.#databases.take() : this.#databases.open(left))
    this.#database = database
    const { store } = database
    const timers = this.#time.scope()
    const plain = await contextOn(store, this.#clock.now, settings, this.#catalogues)
    const ctx = { ...plain, store: this.#heard(store) }
    const api = await this.#apis.take(ctx)
    const listeners = [store.onChange(() => this.#committed())]
    await registerHosts(plain, hostIds)
    // the driver's own period never comes: its timer is not one of ours
    const control = (name: string, pass: () => Promise<string | null>) =>
      startController(name, { periodMs: 2 ** 31 - 1, log: silent, metrics: ctx.metrics }, () => this.#counted(pass))
    const placement = control('placement', placementPass(plain))
    const retention = control('retention', retentionPass(plain))
    listeners.push(
      store.onChange(() => {
        if (this.#wakesToLose > 0) this.#wakesToLose--
        else placement.wake()
      }),
    )
    for (const controller of [placement, retention]) timers.every(settings.controllerPeriodMs, controller.wake)
    const stopListening = () => {
      for (const stop of listeners) stop()
    }
    const controllers = [placement, retention]
    this.#run = { database, api, ctx, timers, controllers, stopListening, ending: new AbortController() }
    this.#commits++
    this.#busy--
  }

  /** Gone as by SIGKILL; comes back after a while. `answered` is a call whose answer is out already. */
  crash(downMs: number, answered?: Caller): void {
    const run = this.#run
    if (run === null) return
    this.#run = null
    this.#crashes++
    this.#commitsToCrash = null
    this.#answerToCrash = null
    this.#database = this.#databases.remains(run.database)
    for (const caller of this.#waiting) {
      if (caller === answered) continue
      caller.fail(new ServerGone('the server is gone'))
      caller.connection.abort()
    }
    this.#waiting.clear()
    // what is left of the run goes on in files that nobody looks at any more
    this.#closing.push(this.#discard(run))
    this.#timers.after(downMs, () => void this.start())
  }

  /** Crash behind the nth commit from now, before anybody is answered. */
  crashAtCommit(nth: number, downMs: number): void {
    if (this.#run !== null) this.#commitsToCrash = { left: nth, downMs }
  }

  /** Crash in the moment in which the next write of a call is answered. */
  crashAtAnswer(downMs: number): void {
    if (this.#run !== null) this.#answerToCrash = { downMs }
  }

  /** The next commits wake no controller. */
  loseWakes(count: number): void {
    this.#wakesToLose += count
  }

  /** Send a request as a client does. Rejects with ServerGone when the server is down or goes down before it answered. */
  request(sent: Sent): Promise<Answer> {
    return this.#counted(() => this.waitingRequest(sent))
  }

  /** Send a request whose answer may wait for a change. */
  waitingRequest(sent: Sent): Promise<Answer> {
    return this.#untilGone((run, caller) => run.api.send(sent, caller.connection.signal))
  }

  /** Have the server do what a host asks for. Rejects with ServerGone as `request` does. */
  call<T>(work: (ctx: Context) => Promise<T>): Promise<T> {
    return this.#untilGone((run) => this.#counted(() => work(run.ctx)))
  }

  /** A call that may wait for a change; the signal says that the server is gone. */
  waitingCall<T>(work: (ctx: Context, signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#untilGone((run) => work(run.ctx, run.ending.signal))
  }

  /** End for good, once what runs has come to its end; a database in order can be used again. */
  async close(inOrder: boolean): Promise<void> {
    this.#timers.end()
    const run = this.#run
    this.#run = null
    if (run !== null) {
      await this.#end(run)
      await run.ctx.store.write(async () => undefined) // behind everything that was queued
      this.#apis.giveBack(run.api)
      await (inOrder ? this.#databases.giveBack(run.database) : this.#databases.discard(run.database))
    }
    if (run === null && this.#database !== null) await this.#databases.discard(this.#database)
    await Promise.allSettled(this.#closing)
  }

  async #discard(run: Run): Promise<void> {
    await this.#end(run)
    await this.#databases.discard(run.database)
    this.#apis.giveBack(run.api) // what it had begun is written or refused by now
  }

  async #end(run: Run): Promise<void> {
    run.timers.end()
    run.ending.abort()
    for (const caller of this.#waiting) caller.connection.abort()
    run.stopListening()
    await Promise.all(run.controllers.map((controller) => controller.stop()))
  }

  #committed(): void {
    this.#commits++
    if (this.#commitsToCrash === null || --this.#commitsToCrash.left > 0) return
    this.crash(this.#commitsToCrash.downMs)
  }

  async #counted<T>(work: () => Promise<T>): Promise<T> {
    this.#busy++
    try {
      return await work()
    } finally {
      this.#busy--
    }
  }

  /** The store, but what it answers a caller's write is heard here first, before anything else can happen. */
  #heard(store: Store): Store {
    const write: Store['write'] = async (work) => {
      const caller = this.#callers.getStore()
      const value = await store.write(work)
      if (this.#answerToCrash !== null && caller !== undefined) this.crash(this.#answerToCrash.downMs, caller)
      return value
    }
    return new Proxy(store, {
      get(target, name) {
        if (name === 'write') return write
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }

  #untilGone<T>(work: (run: Run, caller: Caller) => Promise<T>): Promise<T> {
    const run = this.#run
    if (run === null) return Promise.reject(new ServerGone('the server is down'))
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const caller: Caller = { fail: reject, connection: new AbortController() }
    this.#waiting.add(caller)
    this.#callers
      .run(caller, () => work(run, caller))
      .then(resolve, reject)
      .finally(() => this.#waiting.delete(caller))
    return promise
  }
}
