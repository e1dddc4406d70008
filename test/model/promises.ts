import type { Instance, InstanceCreate, InstancePatch } from '@berth/contract/instances/instances.ts'
import type { DesiredPower, InstanceState } from '@berth/contract/instances/states.ts'
import type { Keys } from './keys.ts'
import { PublicIpPromises } from './public-ips.ts'
import { settings } from './server-process.ts'
import { type InstanceNow, mayFollow, type OperationNow, stateByTable, type Tables } from './tables.ts'
import { Versions } from './versions.ts'

/** An instance that a client was told of, and what it may rely on. */
export interface KnownInstance {
  id: string
  desired: DesiredPower
  /** Wanted by calls that broke before they were answered: it may have come to that, too. */
  perhaps: Set<DesiredPower>
  /** VMM starts so far, and how often one ended without being asked to. */
  starts: number
  ends: number
  /** Ends that may change what is wanted: the guest powered off in the current boot, or the VMM died in any. */
  guestOff: boolean
  vmmDeaths: number
  /** Wanted by calls that were under way since the last rest. */
  asked: Set<DesiredPower>
  /** Reboots that were acknowledged, and those that broke before. */
  reboots: number
  perhapsReboots: number
  versions: Versions
  /** Whether a call may have changed what is wanted since the last rest. */
  acted: boolean
  /** Whether a start or reboot was asked for since the VMM was started. */
  startAsked: boolean
  /**
   * The intent under which the VMM runs whose guest has powered itself off, until it is started again or lost, and how
   * often the host's agent had been killed by then.
   */
  offUnder: { generation: number; kills: number } | null
  last: InstanceNow | null
  state: InstanceState
  /** The state at the check before. */
  stateBefore: InstanceState
  terminatedAt: number | null
  deletion: string | null
}

interface KnownOperation {
  id: string
  resourceId: string
  /** VMM starts and ends of its instance when it was accepted, and whether that ran as far as the server knew. */
  startsBefore: number
  endsBefore: number
  ranBefore: boolean
  last: OperationNow | null
}

/** What an action asks for; a reboot asks for no other power. */
export type Intent = { desired: DesiredPower } | { reboot: true }

/** What is wanted, as far as it is told apart here. */
const intentFields = ['desired', 'grace_seconds', 'reboots', 'reboot_grace_seconds', 'reason'] as const

/** Fields that nothing may change. */
const fixed = ['type', 'image', 'vcpus', 'memory_mb', 'disk_gb', 'vpc_id', 'subnet_id', 'private_ip', 'mac'] as const

/**
 * The small model: what each acknowledged call promises, and whether what the server has stored keeps it. It knows
 * nothing of how the server works.
 */
export class Promises {
  readonly instances = new Map<string, KnownInstance>()
  readonly operations = new Map<string, KnownOperation>()
  readonly publicIps: PublicIpPromises
  /** Creates that broke before they were answered. */
  unansweredCreates = 0
  /** Failures that hosts were told to have. */
  faults = 0
  readonly #violation: (what: string) => void
  readonly #keys: Keys
  readonly #runs: (id: string) => boolean
  /** Latest time by the server's clock. */
  #latestMs = 0

  /** `runs` says whether an instance has a VMM anywhere. */
  constructor(violation: (what: string) => void, keys: Keys, runs: (id: string) => boolean) {
    this.#violation = violation
    this.publicIps = new PublicIpPromises(violation)
    this.#keys = keys
    this.#runs = runs
  }

  /** One of the instances that the clients know, or none when they know none. */
  pick(number: number): string | undefined {
    const ids = [...this.instances.keys()]
    return ids[number % ids.length]
  }

  /** A create was answered: the instance exists from now on. */
  created(id: string, operationId: string, body: InstanceCreate, shown: Pick<Instance, 'metadata' | 'spec'>): void {
    const told = new Map<string, unknown>(Object.entries({ ...shown.spec, name: shown.metadata.name }))
    for (const [field, value] of Object.entries({ name: id, ...body.metadata, ...body.spec })) {
      if (JSON.stringify(told.get(field)) !== JSON.stringify(value))
        this.#violation(`${id} was created with another ${field}`)
    }
    this.#know(id).versions.begin(shown.metadata, shown.spec.security_groups)
    this.#accepted(id, operationId)
  }

  /** An action or deletion is begun. Gives what the instance may have come to by calls that broke, which it overrules. */
  begun(id: string, intent: Intent): ReadonlySet<DesiredPower> {
    const known = this.instances.get(id)
    if ('desired' in intent) known?.asked.add(intent.desired)
    return new Set(known?.perhaps)
  }

  /** What calls that were under way since the last rest may have made of an instance for a while. */
  askedOf(id: string): readonly DesiredPower[] {
    return [...(this.instances.get(id)?.asked ?? [])]
  }

  /** All is at rest: what was under way is over. */
  settled(): void {
    for (const known of this.instances.values()) known.asked.clear()
  }

  /** An action or deletion was answered; `overruled` is what `begun` gave. */
  acted(
    id: string,
    operationId: string,
    intent: Intent,
    options: { isDeletion: boolean; overruled: ReadonlySet<DesiredPower> },
  ): void {
    const { isDeletion, overruled } = options
    const known = this.instances.get(id)
    if (known === undefined) throw new Error(`${id} is not known`)
    known.acted = true
    if ('reboot' in intent || intent.desired === 'running') known.startAsked = true
    if ('reboot' in intent) {
      known.reboots++
    } else {
      if (known.desired === 'deleted' && intent.desired !== 'deleted')
        this.#violation(`${id} came back from a deletion`)
      known.desired = intent.desired
    }
    for (const power of overruled) known.perhaps.delete(power)
    if (isDeletion) {
      known.deletion ??= operationId
      if (known.deletion !== operationId) this.#violation(`${id} was given two deletions`)
    }
    this.#accepted(id, operationId)
  }

  /** An action broke before it was answered. */
  unanswered(id: string, intent: Intent): void {
    const known = this.instances.get(id)
    if (known === undefined) return
    known.acted = true
    if ('reboot' in intent || intent.desired === 'running') known.startAsked = true
    if ('reboot' in intent) known.perhapsReboots++
    else known.perhaps.add(intent.desired)
  }

  /** An instance was shown with a change, or as it is; null: the answer got lost. */
  shown(
    id: string,
    change: InstancePatch,
    ifMatch: string | null,
    shown: { instance: Instance; etag: string } | null,
  ): void {
    this.instances.get(id)?.versions.attempted({ change, ifMatch, shown })
  }

  /** A change was refused because its If-Match named another version. */
  refusedAsOld(id: string, etag: string): void {
    this.instances.get(id)?.versions.refusedAsOld(etag)
  }

  /** The first ETag that was seen of an instance, or one that it never had. */
  firstEtag(id: string): string {
    return this.instances.get(id)?.versions.firstEtag ?? ''
  }

  /** A call about public addresses is under way: what is wanted of some instance may change by it. */
  touched(): void {
    for (const known of this.instances.values()) known.acted = true
  }

  /** Whether there is something to check although nothing was committed. */
  get isUnchecked(): boolean {
    return [...this.instances.values()].some(({ versions }) => versions.isUnchecked)
  }

  /** A VMM is started under an intent; `kills` says how often the host's agent was killed so far. */
  started(id: string, generation: number, kills: number): void {
    const known = this.instances.get(id)
    if (known === undefined) return
    known.starts++
    known.guestOff = false
    const { offUnder, startAsked, versions } = known
    known.offUnder = null
    known.startAsked = false
    // an agent that is killed when it has ended the VMM and not yet noted why takes it for a crash, change or no change
    if (offUnder === null || offUnder.kills !== kills || startAsked || generation <= offUnder.generation) return
    for (let raised = offUnder.generation + 1; raised <= generation; raised++) if (!versions.isByPatch(raised)) return
    this.#violation(
      `${id} was woken by a change of its name or groups: its guest was off since generation ${offUnder.generation}`,
    )
  }

  /** Hold what is stored against what was promised. */
  check(tables: Tables, nowMs: number): void {
    this.#latestMs = Math.max(this.#latestMs, nowMs)
    for (const instance of tables.instances.values()) {
      if (this.instances.has(instance.id)) continue
      if (this.#keys.made(instance) || this.unansweredCreates-- > 0) this.#know(instance.id)
      else this.#violation(`nobody asked for ${instance.id}`)
    }
    for (const known of this.instances.values()) this.#checkInstance(known, tables)
    this.publicIps.check(tables)
    for (const operation of tables.operations.values()) this.#checkOperation(operation, tables)
    for (const known of this.operations.values()) {
      if (!tables.operations.has(known.id)) this.#violation(`operation ${known.id} is gone`)
    }
  }

  #know(id: string): KnownInstance {
    const known: KnownInstance = {
      id,
      desired: 'running',
      perhaps: new Set(),
      asked: new Set(),
      reboots: 0,
      perhapsReboots: 0,
      versions: new Versions(),
      acted: false,
      startAsked: false,
      offUnder: null,
      starts: 0,
      last: null,
      state: 'provisioning',
      stateBefore: 'provisioning',
      terminatedAt: null,
      deletion: null,
      ends: 0,
      guestOff: false,
      vmmDeaths: 0,
    }
    this.instances.set(id, known)
    return known
  }

  /** `isFound`: nobody was answered with it, and the state is of after it. */
  #accepted(id: string, operationId: string, isFound = false): void {
    if (this.operations.has(operationId)) return
    const known = this.instances.get(id)
    this.operations.set(operationId, {
      id: operationId,
      resourceId: id,
      startsBefore: known?.starts ?? 0,
      endsBefore: known?.ends ?? 0,
      ranBefore: known?.state === 'running' || (isFound && known?.stateBefore === 'running'),
      last: null,
    })
  }

  #checkInstance(known: KnownInstance, tables: Tables): void {
    const now = tables.instances.get(known.id)
    if (now === undefined) {
      const expired = known.terminatedAt !== null && this.#latestMs - known.terminatedAt >= settings.tombstoneMs
      if (!expired) this.#violation(`${known.id} was acknowledged and is gone`)
      return
    }
    this.#checkIntent(known, now)
    const { last } = known
    if (last !== null) {
      for (const field of fixed) if (now[field] !== last[field]) this.#violation(`${known.id} has another ${field}`)
      if (last.host_id !== null && now.host_id !== last.host_id) this.#violation(`${known.id} was placed twice`)
      if (now.generation < last.generation) this.#violation(`the generation of ${known.id} fell`)
      if (now.reboots < last.reboots) this.#violation(`the reboots of ${known.id} fell`)
    }
    if (now.reboots < known.reboots || now.reboots > known.reboots + known.perhapsReboots)
      this.#violation(`${known.id} has ${now.reboots} reboots of ${known.reboots} that were asked for`)
    const isSame = last === null ? now.desired === 'running' : intentFields.every((field) => now[field] === last[field])
    const isQuiet = isSame && !known.acted
    const misfit = known.versions.settle(now, isQuiet)
    if (misfit !== null) this.#violation(`${known.id} ${misfit}`)
    known.acted = false
    this.#checkState(known, now)
    const operation = tables.operations.get(now.operation_id)
    if (operation?.resource_id !== known.id) this.#violation(`${known.id} names an operation of another resource`)
    known.last = now
  }

  /** What is wanted is what was asked for last, or what a cause that there was has made of it. */
  #checkIntent(known: KnownInstance, now: InstanceNow): void {
    if (now.desired === known.desired) return
    if (known.perhaps.has(now.desired) && known.desired !== 'deleted') {
      known.desired = now.desired
      return
    }
    const change = `${known.id} is to be ${now.desired} (${now.reason}) and was asked to be ${known.desired}`
    const neverPlaced = now.reason === 'no_host_fits' // that ends one that was stopped before, too
    if ((known.desired !== 'running' && !neverPlaced) || now.desired === 'running') this.#violation(change)
    if (!this.#hasCause(known, now)) this.#violation(`${change}, without a cause`)
    known.desired = now.desired
  }

  #hasCause(known: KnownInstance, now: InstanceNow): boolean {
    switch (now.reason) {
      case 'guest_shutdown':
        return known.guestOff
      case 'crash_loop':
        return known.vmmDeaths >= 5
      case 'deadline_exceeded':
        return now.desired === 'deleted' && this.#latestMs - now.created_at >= settings.deadlinesMs['instance.create']
      case 'no_host_fits':
        return now.desired === 'deleted' && now.memory_mb > 1024
      case 'injected':
        return this.faults-- > 0
      default:
        return false
    }
  }

  #checkState(known: KnownInstance, now: InstanceNow): void {
    const state = stateByTable(now)
    known.stateBefore = known.state
    if ((state === 'terminated') !== (now.terminated_at !== null)) {
      this.#violation(`${known.id} is ${state} and terminated_at is ${now.terminated_at}`)
    }
    if (!mayFollow(known.state, state)) this.#violation(`${known.id} went from ${known.state} to ${state}`)
    known.state = state
    if (known.terminatedAt !== null && now.terminated_at !== known.terminatedAt) {
      this.#violation(`${known.id} was terminated twice`)
    }
    known.terminatedAt = now.terminated_at
  }

  #checkOperation(now: OperationNow, tables: Tables): void {
    let known = this.operations.get(now.id)
    if (known === undefined) {
      // of a call that broke before it was answered, or not answered yet
      this.#accepted(now.resource_id, now.id, true)
      known = this.operations.get(now.id)
      if (known === undefined) return
    }
    const { last } = known
    if (now.resource_id !== known.resourceId) this.#violation(`${now.id} is of ${now.resource_id}`)
    if (last !== null && last.finished_at !== null) {
      const same = last.status === now.status && last.finished_at === now.finished_at && last.error === now.error
      if (!same) this.#violation(`${now.id} had ended and changed`)
    } else if (now.finished_at !== null) {
      this.#checkEnd(known, now, tables)
    }
    known.last = now
  }

  /** An operation has just ended. */
  #checkEnd(known: KnownOperation, now: OperationNow, tables: Tables): void {
    const instance = tables.instances.get(now.resource_id)
    const code = now.error === null ? '' : JSON.parse(now.error).code
    if (now.status === 'cancelled') {
      const later = [...tables.operations.values()].some((o) => o.resource_id === now.resource_id && o.id > now.id)
      if (code !== 'superseded' || !later) this.#violation(`${now.id} was cancelled (${code}) by nothing`)
    }
    if (now.status === 'failed' && code === 'deadline_exceeded' && this.#latestMs < now.deadline_at) {
      this.#violation(`${now.id} failed before its deadline`)
    }
    if (now.status === 'failed' && code === '') this.#violation(`${now.id} failed without a cause`)
    if (now.status === 'succeeded' && instance !== undefined) this.#checkSuccess(known, now, instance)
  }

  /** What a success says must be so. A later intent may have begun to change it again. */
  #checkSuccess(known: KnownOperation, now: OperationNow, instance: InstanceNow): void {
    const its = this.instances.get(now.resource_id)
    const starts = its?.starts ?? 0
    const runs = this.#runs(now.resource_id)
    const current = instance.generation === now.generation
    const state = stateByTable(instance)
    const wrong = (why: string) => this.#violation(`${now.type} ${now.id} succeeded and ${why} (${state})`)
    switch (now.type) {
      case 'instance.create':
        if (starts === 0) wrong('no VMM was ever started')
        return
      case 'instance.start':
        if (current && state !== 'running') wrong('it does not run')
        // a VMM that ended lately may still count as running
        if (!runs && !known.ranBefore && starts <= known.startsBefore && (its?.ends ?? 0) <= known.endsBefore) {
          wrong('no VMM was started for it')
        }
        return
      case 'instance.reboot':
        if (starts <= known.startsBefore) wrong('no VMM was started since')
        return
      case 'instance.stop':
        if (current && (state !== 'stopped' || runs)) wrong('it is not stopped')
        return
      case 'instance.delete':
        if (instance.terminated_at === null) wrong('it is not terminated')
    }
  }
}
