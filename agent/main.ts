import { hostname } from 'node:os'
import type { Observed } from '@berth/contract/hosts/agent-protocol.ts'
import { newId } from '@berth/contract/ids.ts'
import type { ObservedUsage } from '@berth/contract/instances/usage.ts'
import type { Logger } from 'pino'
import { Registry } from 'prom-client'
import { type AgentSettings, defaultAgentSettings } from './config.ts'
import { ConsoleForwarder } from './console/forwarder.ts'
import type { HostDriver } from './host-driver.ts'
import { Ledger, LedgerUnavailable } from './ledger.ts'
import { Reconciler } from './reconcile.ts'
import { AgentMetrics } from './report/metrics.ts'
import { NetworkCheck } from './report/network-check.ts'
import { OrphanLook } from './report/orphans.ts'
import { backOff, type Chance, type Link, ServerLink, ServerRefusal } from './report/server-link.ts'
import { UsageSampler } from './report/usage.ts'
import { pause, systemTimers, type Timers } from './sys/timers.ts'

const agentVersion = '0.1.0'

/**
 * Reports in between name only the instances that changed since the one before. All of them are in the first one, in
 * the one after a report that was not answered, and at least this often; milliseconds.
 */
const wholeReportMs = 60_000

/** Pause after each report: what changes meanwhile is in the next one. Milliseconds. */
const reportPauseMs = 25

/** Pause before the next desired state for each instance in the last one, milliseconds, and the longest pause. */
const desiredPauseMs = { perInstance: 0.25, longest: 1000 }

/** A report goes out at least this often, so that the server knows that the host lives; milliseconds. */
const heartbeatMs = 10_000

export interface AgentConfig {
  ledgerFile: string
  serverUrl: string
  credential: string
  settings?: Partial<AgentSettings>
  /** Where this agent's metrics go; what an agent before it left there is removed. */
  registry?: Registry
  now?: () => number
}

export interface RunningAgent {
  /** Stop working; VMs run on. */
  stop(): Promise<void>
}

/** The id of the host that a ledger belongs to; made the first time. */
export function hostIdOf(ledgerFile: string): string {
  const ledger = new Ledger(ledgerFile)
  try {
    return ledger.hostId(() => newId('host', Date.now()))
  } finally {
    ledger.close()
  }
}

/** What an agent works with besides its host. */
export interface AgentParts extends Chance {
  ledger: Ledger
  /** The way to the server; what it does ends with the signal. */
  connect: (signal: AbortSignal) => Link
  /** Milliseconds UTC by the clock of this host. */
  now: () => number
  settings: AgentSettings
  /** Where this agent's metrics go; what an agent before it left there is removed. */
  registry: Registry
}

/** Start the agent of this host. It works from its ledger at once and from the server's word as soon as that comes. */
export function startAgent(config: AgentConfig, driver: HostDriver, log: Logger): RunningAgent {
  const parts: AgentParts = {
    ledger: new Ledger(config.ledgerFile),
    connect: (signal) => new ServerLink(config.serverUrl, config.credential, signal),
    now: config.now ?? Date.now,
    timers: systemTimers,
    random: Math.random,
    settings: { ...defaultAgentSettings, ...config.settings },
    registry: config.registry ?? new Registry(),
  }
  return runAgent(parts, driver, log)
}

/** Run an agent from its parts; it closes the ledger when it stops. */
export function runAgent(parts: AgentParts, driver: HostDriver, log: Logger): RunningAgent {
  const { ledger, now, timers } = parts
  const ending = new AbortController()
  const link = parts.connect(ending.signal)
  const metrics = new AgentMetrics(parts.registry)
  const reports = new ReportTrigger(timers)
  const reconciler = new Reconciler({
    driver,
    ledger,
    settings: parts.settings,
    log,
    metrics,
    now,
    timers,
    onChange: () => reports.pull(),
    flushConsole: (id) => forwarder.flush(id),
  })
  const forwarder = new ConsoleForwarder(link, reconciler.workers, parts, log)
  const networks = new NetworkCheck({
    driver,
    ledger,
    reconciler,
    metrics,
    periodMs: parts.settings.networkCheckMs,
    now,
    timers,
    log,
    onChange: () => reports.pull(),
  })
  const orphans = new OrphanLook({
    driver,
    known: () => reconciler.known(),
    periodMs: parts.settings.orphanLookMs,
    timers,
    log,
  })
  metrics.countRecords(() => reconciler.powers())
  metrics.countTroubles(() => reconciler.troubles())
  metrics.countNetworkFaults((reason) => reconciler.countFaults(reason))
  const usage = new UsageSampler(driver, now, log)
  metrics.showUsage(() => usage.latest)
  const session = ledger.nextSession(now())
  let sequence = 0
  let freshUsage: readonly ObservedUsage[] | null = null
  let wholeAt = Number.NEGATIVE_INFINITY

  const takeUsage = (): Pick<Observed, 'usage'> => {
    const figures = freshUsage
    freshUsage = null
    return figures === null ? {} : { usage: [...figures] }
  }

  const observed = async (whole: boolean): Promise<Observed> => ({
    agent_session: session,
    sequence: ++sequence,
    revision: reconciler.revision,
    agent_version: agentVersion,
    hostname: hostname(),
    hypervisor: driver.hypervisor,
    accelerator: driver.accelerator.kind,
    accelerator_reason: driver.accelerator.reason,
    capacity: await driver.capacity(),
    images: await driver.images(),
    ...takeUsage(),
    instances: whole ? reconciler.observedInstances() : reconciler.changedInstances(),
    network_repairs: [...networks.pending],
    ...(orphans.pending === undefined ? {} : { orphans: orphans.pending }),
  })

  driver.answerGuests({
    hostId: ledger.hostId(() => newId('host', now())),
    find: (vpcId, address) => reconciler.findGuest(vpcId, address),
    ready: (instanceId, marker) => reconciler.guestReady(instanceId, marker),
    count: (part, status) => metrics.metadataRequests.inc({ part, status: String(status) }),
  })
  driver.onImagesChange(() => reports.pull())
  reconciler.resume()
  const loops = [
    repeat(log, parts, ending.signal, 'desired state', async () => {
      const desired = await link.desired(reconciler.revision)
      if (desired === null) return
      reconciler.apply(desired)
      // each is a whole snapshot: while many instances change, they are taken together
      const pauseMs = Math.min(desired.instances.length * desiredPauseMs.perInstance, desiredPauseMs.longest)
      await pause(timers, pauseMs, ending.signal)
    }),
    repeat(log, parts, ending.signal, 'report', async () => {
      await reports.pulled(heartbeatMs, ending.signal)
      if (ending.signal.aborted) return
      const at = timers.elapsedMs()
      const whole = at - wholeAt >= wholeReportMs
      try {
        const report = await observed(whole)
        await link.report(report)
        orphans.accepted(report.orphans)
        networks.accepted(report.network_repairs ?? [])
        metrics.reported('accepted')
        if (whole) wholeAt = at
        await pause(timers, reportPauseMs, ending.signal)
      } catch (error) {
        metrics.reported(error instanceof ServerRefusal ? 'refused' : 'failed')
        wholeAt = Number.NEGATIVE_INFINITY
        reports.pull() // what was not heard is said again as soon as the server is back
        throw error
      }
    }),
    forwarder.run(ending.signal),
    sampleUsage(parts, ending.signal, async () => {
      freshUsage = await usage.sample(reconciler.workers.values())
      reports.pull()
    }),
    networks.run(ending.signal),
    orphans.run(ending.signal),
  ]
  return {
    async stop() {
      ending.abort()
      await Promise.all([reconciler.stop(), ...loops]) // workers are told first: what Ctrl-C broke is not a failure
      await driver.close()
      ledger.close()
    },
  }
}

/** Look at what instances use, for ever; the figures go with the next report. */
async function sampleUsage({ settings, timers }: AgentParts, signal: AbortSignal, sample: () => Promise<void>) {
  const { usageEveryMs } = settings
  while (usageEveryMs !== null && !signal.aborted) {
    await pause(timers, usageEveryMs, signal)
    if (!signal.aborted) await sample()
  }
}

/** Do something for ever; failures are logged when they begin and when they are over, and paused after. */
async function repeat(
  log: Logger,
  chance: Chance,
  signal: AbortSignal,
  what: string,
  once: () => Promise<void>,
): Promise<void> {
  let failures = 0
  while (!signal.aborted) {
    try {
      await once()
      if (failures > 0) log.info(`${what}: it works again`)
      failures = 0
    } catch (error) {
      if (signal.aborted) return
      const refused = error instanceof ServerRefusal
      const why = error instanceof LedgerUnavailable ? 'it cannot be stored' : 'the server cannot be reached'
      if (failures === 0 || refused) log.warn({ err: error }, `${what}: ${why}`)
      await backOff(failures++, chance, signal)
    }
  }
}

/** Folds many wishes for a report into one. */
class ReportTrigger {
  readonly #timers: Timers
  #wanted = true
  #wake: () => void = () => {}

  constructor(timers: Timers) {
    this.#timers = timers
  }

  pull(): void {
    this.#wanted = true
    this.#wake()
  }

  /** Resolves when a report is wanted, or after `atMostMs`. */
  async pulled(atMostMs: number, signal: AbortSignal): Promise<void> {
    if (!this.#wanted) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      const end = this.#timers.after(atMostMs, resolve)
      const onAbort = () => resolve()
      signal.addEventListener('abort', onAbort)
      await promise
      signal.removeEventListener('abort', onAbort)
      end()
    }
    this.#wanted = false
  }
}
