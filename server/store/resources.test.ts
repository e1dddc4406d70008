import { describe, expect, test } from 'vitest'
import { listEvents } from './events.ts'
import { insertInstance, updateTerminated } from './instances/instances.ts'
import {
  deleteSshKey,
  getSshKey,
  insertSshKey,
  listInstancesWithSshKey,
  listSshKeys,
  listSshKeysById,
} from './instances/ssh-keys.ts'
import {
  deleteSecurityGroup,
  findSecurityGroup,
  getSecurityGroup,
  insertSecurityGroup,
  listGroupsThatName,
  listInstancesWithSecurityGroup,
  listKnownSecurityGroupIds,
  listSecurityGroups,
  type StoredSecurityGroup,
  updateSecurityGroup,
} from './networks/security-groups.ts'
import {
  deleteSubnet,
  findSubnet,
  freeAddress,
  getSubnet,
  insertSubnet,
  listSubnets,
  listSubnetsOfVpcs,
  takeAddress,
} from './networks/subnets.ts'
import { deleteVpc, findVpc, getVpc, insertVpc, listVpcs, listVpcsById } from './networks/vpcs.ts'
import type { Store } from './store.ts'
import { engines } from './testing/engines.ts'
import { storedInstance } from './testing/instances.ts'
import { storesOn } from './testing/stores.ts'
import type { Reader, Transaction } from './transaction.ts'
import { type StoredVersion, updateResource } from './versions.ts'

const common = (id: string) => ({ id, name: id, labels: {}, created_at: 1_800_000_000_000 })

const vpc = (id: string) => ({ ...common(id), cidr: '10.0.0.0/16', is_default: 0 })
const subnet = (id: string, vpcId = 'vpc-a') => ({
  ...common(id),
  vpc_id: vpcId,
  cidr: '10.0.1.0/24',
  next_offset: 4,
  auto_assign_public_ip: 0,
})
const group = (id: string, rules: StoredSecurityGroup['rules'] = []) => ({ ...common(id), description: 'd', rules })
const key = (id: string) => ({ ...common(id), public_key: `ssh-ed25519 ${id}`, fingerprint: `SHA256:${id}` })

const none = { labels: [] }
const idsOf = (rows: readonly { id: string }[]) => rows.map((row) => row.id)

/** Offsets 4 to 6. */
const threeAddresses = (offset: number) => (offset <= 6 ? `10.0.1.${offset}` : null)

describe.each(engines)('the smaller resources on $name', (engine) => {
  const openStore = storesOn(engine)

  async function filled(): Promise<Store> {
    const store = await openStore()
    await store.write(async (tx) => {
      for (const id of ['vpc-b', 'vpc-a']) await insertVpc(tx, vpc(id))
      for (const id of ['subnet-b', 'subnet-a']) await insertSubnet(tx, subnet(id))
      for (const id of ['sg-b', 'sg-a']) await insertSecurityGroup(tx, group(id))
      for (const id of ['key-b', 'key-a']) await insertSshKey(tx, key(id))
    })
    return store
  }

  test('what is stored is read as it was, in lists by id, and what is not there is not found', async () => {
    const store = await filled()
    expect(await findVpc(store.read, 'vpc-a')).toMatchObject({
      ...vpc('vpc-a'),
      uid: expect.any(String),
      generation: 1,
    })
    expect(await findSubnet(store.read, 'subnet-a')).toMatchObject({
      ...subnet('subnet-a'),
      uid: expect.any(String),
      generation: 1,
    })
    expect(await findSecurityGroup(store.read, 'sg-a')).toMatchObject({
      ...group('sg-a'),
      uid: expect.any(String),
      generation: 1,
    })
    expect(await getSshKey(store.read, 'key-a')).toEqual({ ...key('key-a'), uid: expect.any(String), generation: 1 })
    const page = { limit: 10 }
    expect(idsOf((await listVpcs(store.read, none, page)).items)).toEqual(['vpc-a', 'vpc-b'])
    expect(idsOf((await listSubnets(store.read, none, page)).items)).toEqual(['subnet-a', 'subnet-b'])
    expect(idsOf((await listSecurityGroups(store.read, none, page)).items)).toEqual(['sg-a', 'sg-b'])
    expect(idsOf((await listSshKeys(store.read, none, page)).items)).toEqual(['key-a', 'key-b'])
    for (const get of [getVpc, getSubnet, getSecurityGroup, getSshKey]) {
      await expect(get(store.read, 'none')).rejects.toMatchObject({ code: 'not_found' })
    }
  })

  test('several are found by their ids, and no id finds none', async () => {
    const store = await filled()
    expect(idsOf(await listVpcsById(store.read, ['vpc-b', 'vpc-none', 'vpc-a']))).toEqual(['vpc-a', 'vpc-b'])
    expect([...(await listSshKeysById(store.read, ['key-b', 'key-none'])).keys()]).toEqual(['key-b'])
    expect(await listKnownSecurityGroupIds(store.read, ['sg-a', 'sg-none'])).toEqual(new Set(['sg-a']))
    expect(idsOf(await listSubnetsOfVpcs(store.read, ['vpc-a', 'vpc-b']))).toEqual(['subnet-a', 'subnet-b'])
    expect(await listVpcsById(store.read, [])).toEqual([])
    expect(await listSubnetsOfVpcs(store.read, [])).toEqual([])
    expect((await listSshKeysById(store.read, [])).size).toBe(0)
    expect((await listKnownSecurityGroupIds(store.read, [])).size).toBe(0)
  })

  test('lists narrowed by name and labels have full pages, over more rows than are read at once', async () => {
    const store = await openStore()
    const id = (i: number) => `vpc-${String(i).padStart(5, '0')}`
    await store.write(async (tx) => {
      for (let i = 0; i < 1210; i++) {
        const labels = { part: i % 400 === 7 ? 'rare' : 'common' }
        await insertVpc(tx, { ...vpc(id(i)), name: i % 2 === 0 ? 'even' : 'odd', labels })
      }
    })
    const rare = { labels: [{ operator: 'in', key: 'part', values: ['rare'] }] } as const
    expect(idsOf((await listVpcs(store.read, rare, { limit: 10 })).items)).toEqual([id(7), id(407), id(807), id(1207)])
    expect(idsOf((await listVpcs(store.read, rare, { limit: 2, after: id(7) })).items)).toEqual([id(407), id(807)])
    expect(idsOf((await listVpcs(store.read, { ...rare, name: 'even' }, { limit: 10 })).items)).toEqual([])
    expect((await listVpcs(store.read, { ...none, name: 'odd' }, { limit: 1000 })).items).toHaveLength(605)
    expect(idsOf((await listVpcs(store.read, none, { limit: 2, after: id(1208) })).items)).toEqual([id(1209)])
  })

  test('a change of metadata raises the generation; the same again does not; an old version is refused', async () => {
    const store = await filled()
    type Named = StoredVersion & { name: string; labels: Record<string, string> }
    async function check(
      resource: Parameters<typeof updateResource>[1],
      id: string,
      get: (db: Reader, id: string) => Promise<Named>,
    ): Promise<void> {
      const update = (tx: Transaction, read: Named, values: Partial<Named>) =>
        updateResource(tx, resource, read, values)
      const read = await get(store.read, id)
      const change = { name: 'n', labels: { a: 'b', c: 'd' } }
      expect(await store.write((tx) => update(tx, read, change))).toEqual({ ...read, ...change, generation: 2 })
      const changed = await get(store.read, id)
      expect(changed).toEqual({ ...read, ...change, generation: 2 })
      await store.write((tx) => update(tx, changed, { name: 'n', labels: { c: 'd', a: 'b' } }))
      const late = store.write((tx) => update(tx, read, { name: 'late', labels: {} }))
      await expect(late).rejects.toMatchObject({ code: 'unavailable' })
      expect(await get(store.read, id)).toEqual(changed)
    }
    await check('vpc', 'vpc-a', getVpc)
    await check('subnet', 'subnet-a', getSubnet)
    await check('ssh_key', 'key-a', getSshKey)
    const updates = (await listEvents(store.read, 0, 100)).filter((event) => event.type.endsWith('.updated'))
    expect(updates.map((event) => event.type)).toEqual(['vpc.updated', 'subnet.updated', 'ssh_key.updated'])
  })

  test('a group keeps its rules, and knows which groups name it', async () => {
    const store = await filled()
    const rule = {
      direction: 'ingress',
      protocol: 'any',
      remote: { security_group: 'sg-a' },
      description: '',
    } as const
    const read = await getSecurityGroup(store.read, 'sg-b')
    await store.write((tx) => updateSecurityGroup(tx, read, { rules: [rule], description: 'é' }))
    const changed = await getSecurityGroup(store.read, 'sg-b')
    expect(changed).toEqual({ ...read, rules: [rule], description: 'é', generation: 2 })
    expect(await listGroupsThatName(store.read, 'sg-a')).toEqual(['sg-b'])
    await store.write((tx) => updateSecurityGroup(tx, changed, { rules: [{ ...rule }] }))
    await expect(store.write((tx) => updateSecurityGroup(tx, read, { description: 'late' }))).rejects.toMatchObject({
      code: 'unavailable',
    })
    expect(await getSecurityGroup(store.read, 'sg-b')).toEqual(changed)
  })

  test('users are the live instances only, and a tombstone keeps nothing from being deleted', async () => {
    const store = await filled()
    const used = { security_groups: ['sg-a'], ssh_key_ids: ['key-a'] }
    const live = storedInstance('inst-b', used)
    await store.write(async (tx) => {
      await insertInstance(tx, storedInstance('inst-a', { ...used, desired: 'deleted', terminated_at: 5 }))
      await insertInstance(tx, live)
    })
    expect(await listInstancesWithSecurityGroup(store.read, 'sg-a', 10)).toEqual(['inst-b'])
    expect(await listInstancesWithSshKey(store.read, 'key-a', 10)).toEqual(['inst-b'])
    expect(await getSecurityGroup(store.read, 'sg-a')).toMatchObject({ instances: 1 })
    expect(await getVpc(store.read, 'vpc-a')).toMatchObject({ subnets: 2, instances: 1 })
    await store.write((tx) => updateTerminated(tx, live, 6))
    expect(await getVpc(store.read, 'vpc-a')).toMatchObject({ subnets: 2, instances: 0 })
    await store.write(async (tx) => {
      await deleteSecurityGroup(tx, 'sg-a')
      await deleteSshKey(tx, 'key-a')
      for (const id of ['subnet-a', 'subnet-b']) await deleteSubnet(tx, id)
      await deleteVpc(tx, 'vpc-a')
    })
    expect(idsOf((await listVpcs(store.read, none, { limit: 10 })).items)).toEqual(['vpc-b'])
    expect(await store.read.selectFrom('instances').select('id').execute()).toHaveLength(2)
  })

  test('a VPC that has a subnet, and a subnet of no VPC, are refused by the database too', async () => {
    const store = await filled()
    await expect(store.write((tx) => deleteVpc(tx, 'vpc-a'))).rejects.toThrow()
    await expect(store.write((tx) => insertSubnet(tx, subnet('subnet-c', 'vpc-none')))).rejects.toThrow()
    expect(idsOf((await listVpcs(store.read, none, { limit: 10 })).items)).toEqual(['vpc-a', 'vpc-b'])
  })

  test('addresses: fresh ones first, then the one free longest, never one twice, and null when all are taken', async () => {
    const store = await filled()
    let now = 100
    const take = (instance: string) =>
      store.write(async (tx) => {
        const read = await findSubnet(tx.db, 'subnet-a')
        return read === null ? null : takeAddress(tx, read, instance, threeAddresses)
      })
    const free = (instance: string) => store.write((tx) => freeAddress(tx, instance, now++))
    expect([await take('i1'), await take('i2')]).toEqual(['10.0.1.4', '10.0.1.5'])
    await free('i1')
    expect(await take('i3')).toBe('10.0.1.6')
    await free('i2')
    expect(await getSubnet(store.read, 'subnet-a')).toMatchObject({ used: 1, next_offset: 7 })
    expect([await take('i4'), await take('i5'), await take('i6')]).toEqual(['10.0.1.4', '10.0.1.5', null])
    await free('i-none')
    expect(await take('i6')).toBe(null)
    await free('i3')
    const several = await Promise.all([take('i7'), take('i8')])
    expect(several).toEqual(['10.0.1.6', null])
    await expect(
      store.write(async (tx) => {
        const read = await getSubnet(tx.db, 'subnet-b')
        return takeAddress(tx, read, 'i7', threeAddresses) // one instance, one address
      }),
    ).rejects.toThrow()
  })
})
