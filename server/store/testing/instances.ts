import type { ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import type { StoredInstance } from '../instances/instances.ts'
import type { StoredOperation } from '../schema.ts'

/** An instance as the create stores it, with what a test gives instead. */
export function storedInstance(id: string, values: Partial<StoredInstance> = {}): StoredInstance {
  return {
    id,
    name: id,
    labels: {},
    created_at: 1,
    type: 'micro',
    image: 'micro',
    vcpus: 1,
    memory_mb: 256,
    disk_gb: 2,
    vpc_id: 'vpc-a',
    subnet_id: 'subnet-a',
    private_ip: '10.0.0.4',
    mac: `06:${id}`,
    security_groups: [],
    ssh_key_ids: [],
    user_data: '',
    desired: 'running',
    generation: 1,
    grace_seconds: 60,
    reboots: 0,
    reboot_grace_seconds: 60,
    on_capacity: 'queue',
    on_panic: 'restart',
    metadata_revision: 0,
    host_id: null,
    scheduled_at: null,
    refusal: '',
    report: null,
    reason: '',
    message: '',
    terminated_at: null,
    operation_id: 'op-a',
    public_ip: '',
    ...values,
  }
}

/** What a host says of an instance. */
export function report(id: string, power: ObservedInstance['power']): ObservedInstance {
  return {
    id: id as ObservedInstance['id'],
    generation: 1,
    seen_generation: 1,
    power,
    off_cause: '',
    reboots: 0,
    restarts: 0,
    started_at: null,
    conditions: {},
    timeline: {},
    steps: [],
    failure: null,
    network: { netns: '', interface: '' },
  }
}

/** An operation that has just been opened, with what a test gives instead. */
export function storedOperation(id: string, values: Partial<StoredOperation> = {}): StoredOperation {
  return {
    id,
    type: 'instance.create',
    resource_id: 'inst-a',
    status: 'pending',
    steps: [{ name: 'schedule', status: 'pending', attempt: 0, started_at: null, finished_at: null, error: null }],
    error: null,
    generation: 1,
    created_at: 1,
    deadline_at: 1000,
    finished_at: null,
    ...values,
  }
}
