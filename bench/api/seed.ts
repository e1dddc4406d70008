import type { ObservedImage, ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import { newId } from '@berth/contract/ids.ts'
import type { Database } from '@berth/server/store/schema.ts'
import { Store } from '@berth/server/store/store.ts'
import SqliteDatabase from 'better-sqlite3'
import { testPublicKey } from './key.ts'

/** Where the benchmark's own creates go: a subnet with 65,531 addresses that no seeded instance uses. */
export const newInstances = { vpcId: 'vpc-new', subnetId: 'subnet-new' } as const

/** Labels of the seeded instances: 3 × 40 × 1000 values, so that selectors of every breadth can be asked for. */
export const seededLabels = { env: ['production', 'staging', 'dev'], teams: 40, apps: 1000 } as const

const instancesPerHost = 100
const instancesPerVpc = 10_000

/**
 * Fill a new database with running instances, as a fleet leaves them: spread over full hosts that carry 100 each, with
 * labels, groups, a key, an address, a report, an ended operation and an event. Gives their ids.
 */
export async function seedInstances(file: string, count: number): Promise<string[]> {
  await (await Store.open(file)).close() // the schema is the server's own
  const database = new SqliteDatabase(file)
  database.pragma('synchronous = OFF') // what is seeded here may be lost, what the server writes later may not
  const insert = inserter(database)
  const startedAt = Date.now() - 30 * 60_000
  const ids = Array.from({ length: count }, (_, n) => newId('inst', startedAt + n))
  const work = database.transaction(() => {
    insertShared(insert, Math.ceil(count / instancesPerVpc), startedAt)
    for (let host = 0; host < count / instancesPerHost; host++) insertFullHost(insert, host, startedAt)
    ids.forEach((id, n) => {
      insertInstance(insert, { id, n, at: startedAt + n, running: true })
    })
  })
  work()
  database.pragma('wal_checkpoint(TRUNCATE)')
  database.close()
  return ids
}

/** Inserts one row into a table; what the columns are is checked against the server's schema. */
export type Insert = <T extends keyof Database>(table: T, row: Row<T>) => void

/** A row as it is inserted; the database numbers the events. */
type Row<T extends keyof Database> = T extends 'events' ? Omit<Database[T], 'sequence'> : Database[T]

/** An `Insert` that compiles each statement once. */
export function inserter(database: SqliteDatabase.Database): Insert {
  const statements = new Map<string, SqliteDatabase.Statement<unknown[]>>()
  return (table, row) => {
    const columns = Object.keys(row)
    const key = `${table} ${columns.length}`
    let statement = statements.get(key)
    if (statement === undefined) {
      const places = columns.map(() => '?').join(', ')
      statement = database.prepare(`insert into ${table} (${columns.join(', ')}) values (${places})`)
      statements.set(key, statement)
    }
    statement.run(Object.values(row))
  }
}

const vpcOf = (n: number) => Math.floor(n / instancesPerVpc)
const hostOf = (n: number) => `host-${String(Math.floor(n / instancesPerHost)).padStart(20, '0')}`

/** The networks, groups and keys that the instances refer to. */
export function insertShared(insert: Insert, vpcs: number, at: number): void {
  const resource = (id: string) => ({ id, name: id, labels: '{}', created_at: at, uid: id, generation: 1 })
  const addVpc = (vpc: string, subnet: string, cidr: string, nextOffset: number) => {
    insert('vpcs', { ...resource(vpc), cidr, is_default: 0 })
    insert('subnets', { ...resource(subnet), vpc_id: vpc, cidr, next_offset: nextOffset, auto_assign_public_ip: 0 })
  }
  for (let vpc = 0; vpc < vpcs; vpc++) addVpc(`vpc-${vpc}`, `subnet-${vpc}`, `10.${vpc}.0.0/16`, instancesPerVpc + 4)
  addVpc(newInstances.vpcId, newInstances.subnetId, '10.200.0.0/16', 4)
  for (const id of ['sg-web', 'sg-ssh']) insert('security_groups', { ...resource(id), description: '', rules: '[]' })
  insert('ssh_keys', { ...resource('key-001'), public_key: testPublicKey, fingerprint: 'SHA256:of-nobody' })
}

/** Every host holds the image that the instances are made from. */
const heldImage: ObservedImage = {
  id: 'ubuntu-22.04',
  state: 'available',
  received_bytes: 0,
  total_bytes: null,
  reason: '',
  image: {
    id: 'ubuntu-22.04',
    title: 'Ubuntu 22.04',
    min_disk_gb: 1,
    architecture: 'x86_64',
    default_user: 'ubuntu',
    network: 'static',
    origin: 'downloaded',
    source_url: 'https://images.example/ubuntu-22.04.img',
    sha256: '0'.repeat(64),
    size_bytes: 600_000_000,
    virtual_size_bytes: 2_361_393_152,
    created_at: '2026-11-01T00:00:00Z',
  },
}

/** A host without room that was heard of just now. */
function insertFullHost(insert: Insert, n: number, at: number): void {
  const id = hostOf(n * instancesPerHost)
  insert('hosts', {
    id,
    name: id,
    labels: JSON.stringify({ rack: `r${n % 50}` }),
    created_at: at,
    schedulable: 1,
    uid: id,
    generation: 1,
    desired_revision: 100,
    agent_session: at,
    sequence: 1000,
    agent_version: '0.1.0',
    hypervisor: 'qemu',
    accelerator: 'kvm',
    accelerator_reason: '',
    capacity_vcpus: 2 * instancesPerHost,
    capacity_memory_mb: 4096 * instancesPerHost,
    capacity_disk_gb: 80 * instancesPerHost,
    allocated_vcpus: 2 * instancesPerHost,
    allocated_memory_mb: 4096 * instancesPerHost,
    allocated_disk_gb: 80 * instancesPerHost,
    images: JSON.stringify([heldImage]),
    last_seen_at: Date.now(),
    silent: 0,
    last_repair: 0,
  })
}

/**
 * The rows of the instance number `n`: of one that runs, or, when not `running`, those that a create leaves behind
 * before anything else has happened.
 */
export function insertInstance(
  insert: Insert,
  { id, n, at, running }: { id: string; n: number; at: number; running: boolean },
): void {
  const operationId = newId('op', at)
  const inVpc = n % instancesPerVpc
  const address = `10.${vpcOf(n)}.${(inVpc + 4) >> 8}.${(inVpc + 4) & 255}`
  const labels = {
    env: seededLabels.env[n % 3] ?? '',
    team: `team-${n % seededLabels.teams}`,
    app: `app-${n % seededLabels.apps}`,
  }
  insert('instances', {
    id,
    name: `app-${n % seededLabels.apps}-${n}`,
    labels: JSON.stringify(labels),
    created_at: at,
    type: 'cx21',
    image: 'ubuntu-22.04',
    vcpus: 2,
    memory_mb: 4096,
    disk_gb: 80,
    vpc_id: `vpc-${vpcOf(n)}`,
    subnet_id: `subnet-${vpcOf(n)}`,
    private_ip: address,
    mac: `06:00:${n
      .toString(16)
      .padStart(8, '0')
      .replaceAll(/(..)(?=.)/g, '$1:')}`,
    security_groups: JSON.stringify(['sg-web', 'sg-ssh']),
    ssh_key_ids: JSON.stringify(['key-001']),
    user_data: 'IyEvYmluL2Jhc2gKYXB0IHVwZGF0ZQ==',
    desired: 'running',
    generation: 1,
    grace_seconds: 60,
    reboots: 0,
    reboot_grace_seconds: 60,
    on_capacity: 'queue',
    on_panic: 'restart',
    metadata_revision: 0,
    host_id: running ? hostOf(n) : null,
    scheduled_at: running ? at + 10 : null,
    refusal: '',
    report: running ? JSON.stringify(runningReport(id, at)) : null,
    reason: '',
    message: '',
    terminated_at: null,
    operation_id: operationId,
    public_ip: '',
    state: running ? 'running' : 'provisioning',
  })
  for (const [key, value] of Object.entries(labels)) insert('instance_labels', { instance_id: id, key, value })
  for (const group of ['sg-web', 'sg-ssh']) {
    insert('instance_security_groups', { instance_id: id, security_group_id: group })
  }
  insert('instance_ssh_keys', { instance_id: id, ssh_key_id: 'key-001' })
  insert('subnet_addresses', { subnet_id: `subnet-${vpcOf(n)}`, address, instance_id: id, freed_at: 0 })
  insert('operations', {
    id: operationId,
    type: 'instance.create',
    resource_id: id,
    status: running ? 'succeeded' : 'pending',
    steps: JSON.stringify([{ ...endedStep('boot', at), name: 'schedule' }, ...bootSteps(at)]),
    error: null,
    generation: 1,
    created_at: at,
    deadline_at: at + 3_600_000,
    finished_at: running ? at + 5000 : null,
  })
  const state = running ? 'running' : 'provisioning'
  const detail = JSON.stringify({ state, generation: 1, operation_id: operationId })
  insert('events', { at: at + 5000, type: 'instance.updated', resource_id: id, detail })
  if (running) return
  const operation = JSON.stringify({ type: 'instance.create', status: 'pending', resource_id: id })
  insert('events', { at, type: 'operation.created', resource_id: operationId, detail: operation })
}

function endedStep(name: 'image' | 'disk' | 'network' | 'boot', at: number) {
  return { name, status: 'succeeded', attempt: 1, started_at: at, finished_at: at + 100, error: null } as const
}

const bootSteps = (at: number) => (['image', 'disk', 'network', 'boot'] as const).map((name) => endedStep(name, at))

function runningReport(id: string, at: number): ObservedInstance {
  const condition = { status: 'true', reason: '', message: '', at: at + 500 } as const
  return {
    id,
    generation: 1,
    seen_generation: 1,
    power: 'running',
    off_cause: '',
    reboots: 0,
    restarts: 0,
    started_at: at + 500,
    conditions: {
      ImageReady: condition,
      DiskReady: condition,
      NetworkReady: condition,
      Booted: condition,
      GuestReady: { ...condition, reason: 'user_data_ok', at: at + 5000 },
    },
    timeline: {
      image_ready_at: at + 100,
      disk_ready_at: at + 200,
      network_ready_at: at + 300,
      vmm_started_at: at + 500,
      kernel_at: at + 900,
      guest_ready_at: at + 5000,
    },
    steps: bootSteps(at),
    failure: null,
    network: { netns: 'berth-bench-0123456789ab', interface: 'vt0123456789ab' },
  }
}
