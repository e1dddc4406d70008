import { failureCatalogue } from '@berth/contract/errors.ts'
import type {
  DesiredImage,
  HostCondition,
  HostTimelineField,
  ObservedCondition,
  ObservedFailure,
  ObservedInstance,
  ObservedStep,
  OffCause,
} from '@berth/contract/hosts/agent-protocol.ts'
import { endsBoot, type MachineTrouble } from '@berth/contract/instances/machine-troubles.ts'
import type { Nic } from '../network/nic.ts'

/**
 * What the agent knows of an instance, kept in the ledger: written before and after each act, so that an agent that was
 * killed at any line finds its way from here. A VMM is not in it: the process is looked for anew.
 *
 * Its one writer is the instance's `InstanceProgress`; everybody else sees it change, and cannot assign to it.
 */
export interface InstanceRecord {
  readonly id: string
  /** Number of the uid of its VMM. */
  readonly slot: number
  readonly vpc_id: string
  /** Generation of the intent the record was last written under, and the highest that was carried out. */
  readonly seen_generation: number
  readonly done_generation: number
  readonly power: ObservedInstance['power']
  readonly off_cause: OffCause
  /** Intent under which the last run ended; a guest's own power-off counts only against that one. */
  readonly off_generation: number
  /** Last reboot count carried out, stored before it was acted on. */
  readonly reboots: number
  /** Crashes since creation, and those in a row that came soon after a start. */
  readonly restarts: number
  readonly quick_deaths: number
  readonly restart_not_before: number
  /** Host boot the VMM was started in; another one means that the host restarted, not that the VMM crashed. */
  readonly host_boot_id: string
  readonly started_at: number | null
  /**
   * Position of the first byte of the serial log that an earlier version of the agent kept, and where the current boot
   * starts (bytes since creation).
   */
  readonly serial_dropped: number
  readonly boot_serial_start: number
  readonly conditions: Readonly<Partial<Record<HostCondition, Readonly<ObservedCondition>>>>
  readonly timeline: Readonly<Partial<Record<HostTimelineField, number>>>
  readonly steps: readonly Readonly<ObservedStep>[]
  readonly failure: Readonly<ObservedFailure> | null
  /** Why the machine does not run its guest, or is not known to, and since when; null while it does or is off. */
  readonly trouble: { readonly reason: MachineTrouble; readonly at: number } | null
  /** Boot the guest last called itself ready in. */
  readonly ready_boot_id: string
  /** Boots before that one, newest first: what is said in their name comes too late. */
  readonly earlier_boot_ids: readonly string[]
  /** The image its disk is made from. */
  readonly image: Readonly<DesiredImage> | null
  readonly netns: string
  readonly nic: Readonly<Nic> | null
}

/** The record of an instance the host has not heard of before. */
export function newRecord(id: string, slot: number, vpcId: string): InstanceRecord {
  return {
    id,
    slot,
    vpc_id: vpcId,
    seen_generation: 0,
    done_generation: 0,
    power: 'off',
    off_cause: '',
    off_generation: 0,
    reboots: 0,
    restarts: 0,
    quick_deaths: 0,
    restart_not_before: 0,
    host_boot_id: '',
    started_at: null,
    serial_dropped: 0,
    boot_serial_start: 0,
    conditions: {},
    timeline: {},
    steps: [],
    failure: null,
    trouble: null,
    ready_boot_id: '',
    earlier_boot_ids: [],
    image: null,
    netns: '',
    nic: null,
  }
}

/** A record with what versions before this one did not write. */
export function upgradeRecord(record: InstanceRecord): InstanceRecord {
  return {
    ...record,
    trouble: record.trouble ?? null,
    earlier_boot_ids: record.earlier_boot_ids ?? [],
    nic: record.nic === null ? null : { ...{ security_groups: [], public_ip: '', bandwidth_mbps: 0 }, ...record.nic },
  }
}

/** A record as it is in this boot of the host: public addresses went with the boot they were attached in. */
export function inHostBoot(record: InstanceRecord, hostBootId: string): InstanceRecord {
  if (record.nic === null || record.host_boot_id === hostBootId) return record
  return { ...record, nic: { ...record.nic, public_ip: '' } }
}

/** Whether a run that ended so is over until somebody asks for another. */
export function staysOff(cause: OffCause): boolean {
  return cause === 'guest' || cause === 'panic'
}

function wentOffEarlier(record: InstanceRecord): boolean {
  return staysOff(record.off_cause) && record.off_generation !== record.seen_generation
}

/** The conditions with what a trouble makes of those that are about the running machine; theirs come back after it. */
function conditionsOf({ conditions, trouble }: InstanceRecord): InstanceRecord['conditions'] {
  if (trouble === null) return conditions
  const said = { reason: trouble.reason, message: failureCatalogue[trouble.reason], at: trouble.at }
  return {
    ...conditions,
    Booted: { status: trouble.reason === 'unreachable' ? 'unknown' : 'false', ...said },
    GuestReady: { status: endsBoot(trouble.reason) ? 'false' : 'unknown', ...said },
  }
}

/** What the server is told of an instance. */
export function observedInstance(record: InstanceRecord): ObservedInstance {
  return {
    id: record.id,
    generation: record.done_generation,
    seen_generation: record.seen_generation,
    power: record.power,
    // a power-off under an older intent is the host's business by now, not the guest's wish
    off_cause: wentOffEarlier(record) ? 'host' : record.off_cause,
    reboots: record.reboots,
    restarts: record.restarts,
    started_at: record.started_at,
    conditions: conditionsOf(record),
    timeline: record.timeline,
    steps: [...record.steps],
    failure: record.failure,
    network: { netns: record.netns, interface: record.nic?.tap ?? '' },
  }
}
