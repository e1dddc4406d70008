import { networkObjects, type ObservedStep } from '@berth/contract/hosts/agent-protocol.ts'
import { type MachineTrouble, machineTroubles } from '@berth/contract/instances/machine-troubles.ts'
import { type ObservedPower, observedPowers } from '@berth/contract/instances/states.ts'
import type { ObservedUsage } from '@berth/contract/instances/usage.ts'
import { stepNames } from '@berth/contract/operation-kinds.ts'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { requestParts } from '../metadata/guest.ts'
import type { NetworkFault } from '../network/network-fault.ts'

/** Buckets of what takes a machine its time, seconds: from a step of a simulated host to a large download. */
const actBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600]
const applyBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

interface UsageFigure {
  name: string
  help: string
  value: (usage: ObservedUsage) => number
}

const usageCounters: readonly UsageFigure[] = [
  { name: 'cpu_seconds_total', help: 'Processor time of its VMM', value: (usage) => usage.cpu_ms / 1000 },
  { name: 'disk_read_bytes_total', help: 'Read by the guest', value: (usage) => usage.disk_read_bytes },
  { name: 'disk_written_bytes_total', help: 'Written by the guest', value: (usage) => usage.disk_written_bytes },
  { name: 'network_received_bytes_total', help: 'To the guest', value: (usage) => usage.received_bytes },
  { name: 'network_received_packets_total', help: 'To the guest', value: (usage) => usage.received_packets },
  {
    name: 'network_sent_bytes_total',
    help: 'From the guest, also what rules dropped',
    value: (usage) => usage.sent_bytes,
  },
  {
    name: 'network_sent_packets_total',
    help: 'From the guest, also what rules dropped',
    value: (usage) => usage.sent_packets,
  },
]

const usageGauges: readonly UsageFigure[] = [
  { name: 'memory_bytes', help: 'Memory of the host that its VMM holds', value: (usage) => usage.memory_bytes },
  {
    name: 'disk_allocated_bytes',
    help: "Of the host's disks that its disk takes",
    value: (usage) => usage.disk_allocated_bytes,
  },
]

const networkFaultGauges: readonly [name: string, reason: NetworkFault['reason'], help: string][] = [
  [
    'berth_agent_instances_without_rules',
    'rules_not_in_force',
    'Instances that carry a security group which is not in force as it is asked for',
  ],
  [
    'berth_agent_instances_without_public_address',
    'public_address_taken',
    'Instances whose public address is led elsewhere on this machine, by another installation for one',
  ],
]

/** What became of a report: accepted, refused by the server's word, or failed on the way. */
export type ReportOutcome = 'accepted' | 'refused' | 'failed'

/**
 * The figures of one agent. Its registry is given to whoever answers `GET /metrics` in the same process: the agent
 * itself listens to nobody. The names begin with `berth_agent_`.
 */
export class AgentMetrics {
  readonly applyDurations: Histogram
  readonly stepFailures: Counter<'step'>
  readonly networkRepairs: Counter<'object'>
  readonly vmmsLost: Counter<'cause'>
  readonly troubles: Counter<'reason'>
  readonly metadataRequests: Counter<'part' | 'status'>
  readonly #acts: Histogram<'act' | 'outcome'>
  readonly #steps: Histogram<'step' | 'outcome'>
  readonly #reports: Counter<'outcome'>
  readonly #reportedAt: Gauge
  readonly #registry: Registry

  /** Takes the registry over: what is in it, of an agent that has stopped, is removed. */
  constructor(registry: Registry) {
    registry.clear()
    this.#registry = registry
    const registers = [registry]
    this.applyDurations = new Histogram({
      name: 'berth_agent_apply_duration_seconds',
      help: 'Time to take a new desired state: make it durable and hand each instance its part',
      buckets: applyBuckets,
      registers,
    })
    this.#acts = new Histogram({
      name: 'berth_agent_act_duration_seconds',
      help: 'Time an act on an instance took; failed ones are tried again',
      labelNames: ['act', 'outcome'],
      buckets: actBuckets,
      registers,
    })
    this.#steps = new Histogram({
      name: 'berth_agent_step_duration_seconds',
      help: 'Time a step took, all its attempts and the pauses between them',
      labelNames: ['step', 'outcome'],
      buckets: actBuckets,
      registers,
    })
    this.stepFailures = new Counter({
      name: 'berth_agent_step_failures_total',
      help: 'Attempts of a step that failed, also when a later one succeeded',
      labelNames: ['step'],
      registers,
    })
    this.vmmsLost = new Counter({
      name: 'berth_agent_vmms_lost_total',
      help: 'VMMs that were gone without having been asked to go, and are restarted: by a crash of their own or with their host',
      labelNames: ['cause'],
      registers,
    })
    this.troubles = new Counter({
      name: 'berth_agent_machine_troubles_total',
      help: 'Times a machine whose process was there began not to run its guest, by why',
      labelNames: ['reason'],
      registers,
    })
    this.networkRepairs = new Counter({
      name: 'berth_agent_network_repairs_total',
      help: 'Objects of the networks that were found to be other than they should be and were put right',
      labelNames: ['object'],
      registers,
    })
    this.#reports = new Counter({
      name: 'berth_agent_reports_total',
      help: 'Reports to the server: accepted, refused by it, or failed on the way',
      labelNames: ['outcome'],
      registers,
    })
    this.#reportedAt = new Gauge({
      name: 'berth_agent_last_report_timestamp_seconds',
      help: 'When the server last accepted a report, Unix time',
      registers,
    })
    this.metadataRequests = new Counter({
      name: 'berth_agent_metadata_requests_total',
      help: 'Requests of guests to the metadata service, by what they asked for and the status of the answer',
      labelNames: ['part', 'status'],
      registers,
    })
    for (const part of requestParts) this.metadataRequests.inc({ part, status: '200' }, 0)
    for (const step of stepNames) if (step !== 'schedule') this.stepFailures.inc({ step }, 0)
    for (const object of networkObjects) this.networkRepairs.inc({ object }, 0)
    for (const reason of machineTroubles) this.troubles.inc({ reason }, 0)
    for (const cause of ['crash', 'host']) this.vmmsLost.inc({ cause }, 0)
    for (const outcome of ['accepted', 'refused', 'failed']) this.#reports.inc({ outcome }, 0)
  }

  /** Have the instances of this host counted by what their VMM does, when someone asks. */
  countRecords(powers: () => ReadonlyMap<ObservedPower, number>): void {
    new Gauge({
      name: 'berth_agent_instances',
      help: 'Instances this agent knows, by what their VMM does',
      labelNames: ['power'],
      registers: [this.#registry],
      collect() {
        const counts = powers()
        for (const power of observedPowers) this.set({ power }, counts.get(power) ?? 0)
      },
    })
  }

  /** Have the instances counted whose network is not as it is asked for, by why, when someone asks. */
  countNetworkFaults(count: (reason: NetworkFault['reason']) => number): void {
    for (const [name, reason, help] of networkFaultGauges) {
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(count(reason))
        },
      })
    }
  }

  /** Have what each running instance used shown, as the host last looked. */
  showUsage(latest: () => readonly ObservedUsage[]): void {
    const registers = [this.#registry]
    for (const { name, help, value } of usageCounters) {
      new Counter({
        name: `berth_agent_instance_${name}`,
        help,
        labelNames: ['instance_id'],
        registers,
        collect() {
          this.reset() // of instances that are gone nothing is shown
          for (const usage of latest()) this.inc({ instance_id: usage.id }, value(usage))
        },
      })
    }
    for (const { name, help, value } of usageGauges) {
      new Gauge({
        name: `berth_agent_instance_${name}`,
        help,
        labelNames: ['instance_id'],
        registers,
        collect() {
          this.reset()
          for (const usage of latest()) this.set({ instance_id: usage.id }, value(usage))
        },
      })
    }
  }

  /** Have the machines counted that do not run their guest, by why, when someone asks. */
  countTroubles(troubles: () => ReadonlyMap<MachineTrouble, number>): void {
    new Gauge({
      name: 'berth_agent_machines_in_trouble',
      help: 'Machines whose process is there and does not run its guest, or is not known to, by why',
      labelNames: ['reason'],
      registers: [this.#registry],
      collect() {
        const counts = troubles()
        for (const reason of machineTroubles) this.set({ reason }, counts.get(reason) ?? 0)
      },
    })
  }

  acted(act: string, outcome: 'done' | 'failed', durationMs: number): void {
    this.#acts.observe({ act, outcome }, durationMs / 1000)
  }

  /** The times of a step are the wall clock's; one that was set back gives 0. */
  stepEnded({ name, status, started_at: startedAt, finished_at: finishedAt }: ObservedStep): void {
    const ms = startedAt === null || finishedAt === null ? 0 : Math.max(0, finishedAt - startedAt)
    this.#steps.observe({ step: name, outcome: status }, ms / 1000)
  }

  reported(outcome: ReportOutcome): void {
    this.#reports.inc({ outcome })
    if (outcome === 'accepted') this.#reportedAt.setToCurrentTime()
  }
}
