import {
  type BootTimeline,
  type Condition,
  conditionTypes,
  type Instance,
  type InstanceCreated,
} from '@berth/contract/instances/instances.ts'
import { toRfc3339, toRfc3339Millis } from '@berth/contract/units.ts'
import { type StoredInstance, stateOf, troubleOf } from '../../store/instances/instances.ts'
import { metadataDocument } from '../labels.ts'

/** An instance as GET and lists show it. */
export function instanceDocument(instance: StoredInstance): Instance {
  const report = instance.report
  const holdsAddresses = instance.host_id !== null && instance.terminated_at === null // a tombstone holds none
  const state = stateOf(instance)
  return {
    ...identity(instance),
    status: {
      state,
      host_id: instance.host_id ?? '',
      private_ip: holdsAddresses ? instance.private_ip : '',
      public_ip: holdsAddresses ? instance.public_ip : '',
      ...cause(instance),
      started_at: state === 'running' ? timeOrEmpty(report?.started_at) : '',
      observed_generation: report?.generation ?? 0,
      restarts: report?.restarts ?? 0,
      network: report?.network ?? { netns: '', interface: '' },
      conditions: conditionTypes.map((type) => condition(instance, type)),
      boot_timeline: timeline(instance),
    },
    operation_id: instance.operation_id,
  }
}

/** The answer to the POST that made an instance: nothing of its status is known yet. */
export function createdDocument(instance: StoredInstance): InstanceCreated {
  return {
    ...identity(instance),
    status: { state: 'provisioning', host_id: '', private_ip: '', public_ip: '' },
    operation_id: instance.operation_id,
  }
}

function identity(instance: StoredInstance) {
  return {
    id: instance.id,
    metadata: metadataDocument(instance),
    spec: {
      type: instance.type,
      image: instance.image,
      vcpus: instance.vcpus,
      memory_mb: instance.memory_mb,
      disk_gb: instance.disk_gb,
      vpc_id: instance.vpc_id,
      subnet_id: instance.subnet_id,
      security_groups: instance.security_groups,
      ssh_key_ids: instance.ssh_key_ids,
      user_data: instance.user_data,
      on_panic: instance.on_panic,
    },
  }
}

/** Why it is as it is: what was written with the intent, else what keeps the machine from running its guest now. */
function cause(instance: StoredInstance): { reason: string; message: string } {
  const { reason, message } = instance
  const trouble = reason === '' ? troubleOf(instance) : null
  if (trouble === null) return { reason, message }
  return { reason: trouble.reason, message: `${trouble.message} (since ${toRfc3339(trouble.at)})` }
}

function condition(instance: StoredInstance, type: Condition['type']): Condition {
  if (type === 'Scheduled') return scheduled(instance)
  const reported = instance.report?.conditions[type]
  if (reported === undefined) return { type, status: 'unknown', reason: '', message: '', at: '' }
  const { status, reason, message, at } = reported
  return { type, status, reason, message, at: toRfc3339(at) }
}

function scheduled(instance: StoredInstance): Condition {
  if (instance.scheduled_at !== null) {
    return { type: 'Scheduled', status: 'true', reason: '', message: '', at: toRfc3339(instance.scheduled_at) }
  }
  if (instance.refusal !== '') {
    return { type: 'Scheduled', status: 'false', reason: 'no_host_has_room', message: instance.refusal, at: '' }
  }
  return { type: 'Scheduled', status: 'unknown', reason: '', message: '', at: '' }
}

function timeline(instance: StoredInstance): BootTimeline {
  const reported = instance.report?.timeline ?? {}
  return {
    accepted_at: toRfc3339Millis(instance.created_at),
    scheduled_at: timeOrEmpty(instance.scheduled_at),
    image_ready_at: timeOrEmpty(reported.image_ready_at),
    disk_ready_at: timeOrEmpty(reported.disk_ready_at),
    network_ready_at: timeOrEmpty(reported.network_ready_at),
    vmm_started_at: timeOrEmpty(reported.vmm_started_at),
    kernel_at: timeOrEmpty(reported.kernel_at),
    guest_ready_at: timeOrEmpty(reported.guest_ready_at),
  }
}

function timeOrEmpty(ms: number | null | undefined): string {
  return ms === null || ms === undefined ? '' : toRfc3339Millis(ms)
}
