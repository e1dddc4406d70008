import { desiredInstance } from '@berth/agent/testing/desired-instance.ts'
import type { OrphanList } from '@berth/contract/hosts/orphans.ts'
import { Store } from '@berth/server/store/store.ts'
import type { Transaction } from '@berth/server/store/transaction.ts'
import { describe, expect, test } from 'vitest'
import { CliStack } from '../../cli/testing/cli-stack.ts'
import { leftOver, type Stack, startStack, TestClock, testImages, testPublicKey, until } from '../stack.ts'

const gone = 'inst-00000000000000000000'
const dayMs = 24 * 60 * 60_000

async function behindTheServersBack(stack: Stack, work: (tx: Transaction) => Promise<unknown>): Promise<void> {
  const store = await Store.open(stack.database)
  await store.write(work)
  await store.close()
}

describe('orphans of the database', () => {
  test('finds nothing after instances came and went, and while one is there', async () => {
    await using stack = await startStack()
    await stack.ended(await stack.delete((await stack.createReady({}, { labels: { a: 'b' } })).id))
    await stack.createReady()
    expect(await leftOver(stack)).toEqual([])
  })

  const plants: [kind: string, name: string, plant: (tx: Transaction, stack: Stack) => Promise<unknown>][] = [
    [
      'address',
      '10.64.0.99',
      async ({ db }) => {
        const { id } = await db.selectFrom('subnets').select('id').executeTakeFirstOrThrow()
        const row = { subnet_id: id, address: '10.64.0.99', instance_id: gone, freed_at: 0 }
        await db.insertInto('subnet_addresses').values(row).execute()
      },
    ],
    [
      'public_ip',
      'pip-00000000000000000000',
      async ({ db }) => {
        const { id } = await db.selectFrom('instances').select('id').executeTakeFirstOrThrow()
        await db
          .insertInto('public_ips')
          .values({
            id: 'pip-00000000000000000000',
            name: 'lost',
            labels: '{}',
            created_at: 0,
            pool: 'default',
            address: '192.0.2.9',
            instance_id: id,
            auto_assigned: 0,
            uid: '',
            generation: 1,
          })
          .execute()
      },
    ],
    [
      'public_address',
      '192.0.2.8',
      ({ db }) =>
        db
          .insertInto('public_addresses')
          .values({ number: 0xc000_0208, public_ip_id: 'pip-00000000000000000000', freed_at: 0 })
          .execute(),
    ],
    [
      'reservation',
      '4 vCPUs, 256 MiB, 2 GiB',
      ({ db }, stack) => db.updateTable('hosts').set({ allocated_vcpus: 4 }).where('id', '=', stack.hostId).execute(),
    ],
    [
      'operation',
      'op-00000000000000000000',
      ({ db }) =>
        db
          .insertInto('operations')
          .values({
            id: 'op-00000000000000000000',
            type: 'instance.delete',
            resource_id: gone,
            status: 'pending',
            steps: '[]',
            error: null,
            generation: 1,
            created_at: Date.now(),
            deadline_at: Date.now() + dayMs,
            finished_at: null,
          })
          .execute(),
    ],
    [
      'idempotency_key',
      'forgotten',
      ({ db }) =>
        db
          .insertInto('idempotency_keys')
          .values({ key: 'forgotten', fingerprint: '', status: 201, location: '', body: '', created_at: 1 })
          .execute(),
    ],
  ]
  test.each(plants)('finds one of the kind %s', async (kind, name, plant) => {
    // no sweep within the test: it would take the key away
    const stack = await startStack({ settings: { controllerPeriodMs: 3_600_000 }, patienceMs: 0 })
    const { id } = await stack.createReady()
    if (kind === 'public_ip') await stack.ended(await stack.delete(id))
    await behindTheServersBack(stack, (tx) => plant(tx, stack))
    const found = await leftOver(stack)
    expect(found.map((orphan) => [orphan.kind, orphan.name])).toEqual([[kind, name]])
    expect(found[0]?.host_id).toBe(kind === 'reservation' ? stack.hostId : '')
    await expect(stack.close()).rejects.toThrow(`${kind} ${name}`)
  })

  test.each([
    ['label', 'instance_labels', 'key', 'env'],
    ['security_group_use', 'instance_security_groups', 'security_group_id', 'sg-a'],
    ['ssh_key_use', 'instance_ssh_keys', 'ssh_key_id', 'key-a'],
  ] as const)(
    'finds one of the kind %s, where the database did not keep its own rules',
    async (kind, table, column, name) => {
      const stack = await startStack({ patienceMs: 500 })
      await stack.api('POST', '/v1/security-groups', { id: 'sg-a' })
      await stack.api('POST', '/v1/ssh-keys', { id: 'key-a', spec: { public_key: testPublicKey } })
      const { default: SqliteDatabase } = await import('better-sqlite3')
      const database = new SqliteDatabase(stack.databaseFile)
      database.pragma('foreign_keys = off')
      const more = table === 'instance_labels' ? ', value' : ''
      database
        .prepare(`insert into ${table} (instance_id, ${column}${more}) values (?, ?${more === '' ? '' : ", ''"})`)
        .run(gone, name)
      database.close()
      expect(await leftOver(stack)).toMatchObject([{ kind, name, detail: `of ${gone}, which is gone` }])
      await expect(stack.close()).rejects.toThrow(`${kind} ${name}`)
    },
  )

  test('leaves a key alone whose time is just over: the sweep comes for it', async () => {
    const clock = new TestClock()
    await using stack = await startStack({ now: clock.now, settings: { controllerPeriodMs: 3_600_000 } })
    await stack.api('POST', '/v1/vpcs', { spec: { cidr: '10.9.0.0/16' } }, { 'idempotency-key': 'one' })
    clock.advance(dayMs + 30_000)
    expect(await leftOver(stack)).toEqual([])
  })
})

describe('orphans of a host', () => {
  test('says when it looked, and what nothing explains', async () => {
    const stack = await startStack({ agentSettings: { orphanLookMs: 20 } })
    const list = async () => (await stack.api<OrphanList>('GET', '/v1/orphans')).body
    await stack.createReady()
    const [{ looked_at: first } = { looked_at: '' }] = (await until(list, ({ hosts }) => hosts[0]?.looked_at !== ''))
      .hosts
    expect(Math.abs(Date.now() - Date.parse(first))).toBeLessThan(30_000)
    const network = { vpc_id: 'vpc-a', cidr: '10.0.0.0/16', subnets: [] } as const
    const [image] = testImages
    if (image === undefined) throw new Error('there is no image')
    const instance = desiredInstance({ id: gone })
    await stack.host.ensureDisk(instance, { ...network, subnets: [] }, image, { signal: AbortSignal.timeout(5000) })
    await stack.restartAgent() // its first report tells of it at once
    const { items } = await until(list, (found) => found.items.length > 0)
    expect(items).toEqual([
      { kind: 'instance_directory', name: gone, host_id: stack.hostId, detail: 'of no instance of this host' },
    ])
    await expect(stack.close()).rejects.toThrow(`instance_directory ${gone}`)
  })

  test('a report of it is refused when it is too long or of an unknown form', async () => {
    await using stack = await startStack({ agent: false })
    const orphan = { kind: 'link', name: 'vt1', detail: '' }
    for (const orphans of [
      { age_ms: 0, found: Array.from({ length: 1001 }, () => orphan) },
      { age_ms: -1, found: [] },
      { age_ms: 0, found: [{ ...orphan, kind: 'address' }] },
      { age_ms: 0, found: [{ ...orphan, name: 'x'.repeat(501) }] },
      { age_ms: 0, found: [{ ...orphan, host_id: 'another' }] },
    ]) {
      const body = {
        agent_session: 1,
        sequence: 1,
        revision: 0,
        agent_version: '',
        hostname: '',
        hypervisor: 'simulated',
        accelerator: 'none',
        accelerator_reason: '',
        capacity: { vcpus: 1, memory_mb: 1, disk_gb: 1 },
        images: [],
        instances: [],
        orphans,
      }
      expect((await stack.agentApi('POST', '/v1/agent/observed', body)).status).toBe(422)
    }
  })
})

test('berth orphans ends with 1 when something is left, and says what', async () => {
  const stack = await CliStack.start()
  try {
    await stack.host.heartbeat()
    const clean = await stack.run(['orphans'])
    expect(clean).toMatchObject({ code: 0, stdout: '' })
    expect(clean.stderr).toBe(`${stack.host.id} has not looked yet\n`)
    await stack.host.reportOrphans([{ kind: 'link', name: 'vt\u001b1', detail: 'the tap of no instance' }])
    const found = await stack.run(['orphans'])
    expect(found.code).toBe(1)
    expect(found.stdout).toContain('link  vt')
    expect(found.stdout).not.toContain('\u001b')
    expect(found.stderr).toContain('1 left over')
    expect((await stack.run(['orphans', '-q'])).stdout).toContain('vt')
    expect(JSON.parse((await stack.run(['orphans', '-o', 'json'])).stdout).items).toHaveLength(1)
  } finally {
    await stack.stop()
  }
})
