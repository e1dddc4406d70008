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

import type { Nic } from '../network/nic.ts'

/**
 * What the agent knows of an instance, kept in the ledger: written before and after each act, so that an agent that was
 * killed at any line finds its way from here. A VMM is not in it: the process is looked for anew.
 */
export interface InstanceRecord {
  id: string
  /** Number of the uid of its VMM. */
  slot: number
  vpc_id: string
  /** Generation of the intent the record was last written under, and the highest that was carried out. */
  seen_generation: number
  done_generation: number
  power: ObservedInstance['power']
  off_cause: OffCause
  /** Intent under which the last run ended; a guest's own power-off counts only against that one. */
  off_generation: number
  /** Last reboot count carried out, stored before it was acted on. */
  reboots: number
  /** Crashes since creation, and those in a row that came soon after a start. */
  restarts: number
  quick_deaths: number
  restart_not_before: number
  /** Host boot the VMM was started in; another one means that the host restarted, not that the VMM crashed. */
  host_boot_id: string
  started_at: number | null
  /** Serial bytes dropped from the front of the log, and where the current boot starts (bytes since creation). */
  serial_dropped: number
  boot_serial_start: number
  conditions: Partial<Record<HostCondition, ObservedCondition>>
  timeline: Partial<Record<HostTimelineField, number>>
  steps: ObservedStep[]
  failure: ObservedFailure | null
  /** Boot the guest last called itself ready in. */
  ready_boot_id: string
  /** Boots before that one, newest first: what is said in their name comes too late. */
  earlier_boot_ids: string[]
  /** The image its disk is made from. */
  image: DesiredImage | null
  netns: string
  nic: Nic | null
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
    ready_boot_id: '',
    earlier_boot_ids: [],
    image: null,
    netns: '',
    nic: null,
  }
}

/** A record with what versions before this one did not write. */
export function upgradeRecord(record: InstanceRecord): InstanceRecord {
  if (record.nic !== null) {
    record.nic = { ...{ security_groups: [], public_ip: '', bandwidth_mbps: 0 }, ...record.nic }
  }
  return { ...record, earlier_boot_ids: record.earlier_boot_ids ?? [] }
}

function guestWentOffEarlier(record: InstanceRecord): boolean {
  return record.off_cause === 'guest' && record.off_generation !== record.seen_generation
}

/** What the server is told of an instance. */
export function observedInstance(record: InstanceRecord): ObservedInstance {
  return {
    id: record.id,
    generation: record.done_generation,
    seen_generation: record.seen_generation,
    power: record.power,
    // a power-off under an older intent is the host's business by now, not the guest's wish
    off_cause: guestWentOffEarlier(record) ? 'host' : record.off_cause,
    reboots: record.reboots,
    restarts: record.restarts,
    started_at: record.started_at,
    conditions: record.conditions,
    timeline: record.timeline,
    steps: record.steps,
    failure: record.failure,
    network: { netns: record.netns, interface: record.nic?.tap ?? '' },
  }
}
