import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { InstanceRow, OperationRow } from './schema.ts'
import { engines, type TestDatabase } from './testing/engines.ts'
import { countInstancesByState, countOpenOperations, countUnplacedInstances, listHostAllocations } from './totals.ts'

/** More than two pieces of each kind that is counted in pieces. */
const instances = 6100
const operations = 620

const instance = (n: number): InstanceRow => ({
  id: `inst-${String(n).padStart(20, '0')}`,
  name: 'test',
  labels: '{}',
  created_at: 0,
  type: 'micro',
  image: 'micro',
  vcpus: 1,
  memory_mb: 1,
  disk_gb: 1,
  vpc_id: 'vpc-a',
  subnet_id: 'subnet-a',
  private_ip: `ip-${n}`,
  mac: `mac-${n}`,
  security_groups: '[]',
  ssh_key_ids: '[]',
  user_data: '',
  desired: 'running',
  generation: 1,
  grace_seconds: 0,
  reboots: 0,
  reboot_grace_seconds: 0,
  on_capacity: 'queue',
  on_panic: 'restart',
  metadata_revision: 0,
  host_id: n < 300 ? null : 'host-a',
  scheduled_at: null,
  refusal: '',
  report: null,
  reason: '',
  message: '',
  terminated_at: null,
  operation_id: '',
  public_ip: '',
  state: n < 300 ? 'provisioning' : n % 1000 === 0 ? 'stopped' : 'running',
})

const operation = (n: number): OperationRow => ({
  id: `op-${String(n).padStart(20, '0')}`,
  type: n % 5 === 0 ? 'instance.delete' : 'instance.create',
  resource_id: 'inst-a',
  status: n < 20 ? 'succeeded' : n % 2 === 0 ? 'pending' : 'running',
  steps: '[]',
  error: null,
  generation: 1,
  created_at: 0,
  deadline_at: 0,
  finished_at: n < 20 ? 1 : null,
})

describe.each(engines)('totals on $name', (engine) => {
  let database: TestDatabase
  beforeAll(async () => {
    await engine.start()
    database = await engine.create()
  })
  afterAll(async () => {
    await database.remove()
    await engine.stop()
  })

  test('what is counted in pieces is counted once and whole', async () => {
    const store = await database.open()
    await store.write(async ({ db }) => {
      const host = { id: 'host-a', name: 'a', created_at: 0, ...emptyHost }
      await db
        .insertInto('hosts')
        .values([host, { ...host, id: 'host-b', last_seen_at: 0 }])
        .execute()
      for (let n = 0; n < instances; n += 100) {
        const rows = Array.from({ length: 100 }, (_, i) => instance(n + i))
        await db.insertInto('instances').values(rows).execute()
      }
      for (let n = 0; n < operations; n += 10) {
        const rows = Array.from({ length: 10 }, (_, i) => operation(n + i))
        await db.insertInto('operations').values(rows).execute()
      }
    })
    expect(Object.fromEntries(await countInstancesByState(store.read))).toEqual({
      provisioning: 300,
      running: 5794,
      stopping: 0,
      stopped: 6,
      terminated: 0,
    })
    expect(await countUnplacedInstances(store.read)).toBe(300)
    expect(Object.fromEntries(await countOpenOperations(store.read))).toEqual({
      'instance.create': 480,
      'instance.delete': 120,
    })
    expect(await listHostAllocations(store.read)).toMatchObject([
      { capacity_vcpus: 4, allocated_vcpus: 1, last_seen_at: 7 },
    ])
  })
})

const emptyHost = {
  labels: '{}',
  schedulable: 1,
  uid: '',
  generation: 1,
  desired_revision: 1,
  agent_session: 0,
  sequence: 0,
  agent_version: '',
  hypervisor: '',
  accelerator: '',
  accelerator_reason: '',
  capacity_vcpus: 4,
  capacity_memory_mb: 0,
  capacity_disk_gb: 0,
  allocated_vcpus: 1,
  allocated_memory_mb: 0,
  allocated_disk_gb: 0,
  images: '[]',
  last_seen_at: 7,
  silent: 0,
  last_repair: 0,
}
