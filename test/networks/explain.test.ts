import type { NetworkExplanation } from '@berth/contract/networks/explain.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Stack, startStack } from '../stack.ts'

let stack: Stack
let web = ''
let db = ''
beforeAll(async () => {
  stack = await startStack({ publicPools: [{ name: 'default', cidr: '203.0.113.0/24' }] })
  const rule = (direction: string, protocol: string, remote: object, port?: number) => ({
    direction,
    protocol,
    remote,
    description: '',
    ...(port === undefined ? {} : { port_from: port }),
  })
  const out = rule('egress', 'any', { cidr: '0.0.0.0/0' })
  await stack.api('POST', '/v1/security-groups', { id: 'sg-web', spec: { rules: [out] } })
  const fromWeb = rule('ingress', 'tcp', { security_group: 'sg-web' }, 5432)
  await stack.api('POST', '/v1/security-groups', { id: 'sg-db', spec: { rules: [fromWeb] } })
  web = (await stack.createReady({ security_groups: ['sg-web'] }, { name: 'web' })).id
  db = (await stack.createReady({ security_groups: ['sg-db'] }, { name: 'db' })).id
})
afterAll(() => stack.close())

const ask = (body: object) => stack.api<NetworkExplanation>('POST', '/v1/network/explain', body)
const refuse = async (body: unknown) => {
  const answer = await stack.api('POST', '/v1/network/explain', body)
  return [answer.status, ...answer.body.errors.map((error) => error.pointer)]
}
const tcp = (port: number) => ({ protocol: 'tcp', port })

test('says which rule lets packets through', async () => {
  const { status, body } = await ask({ from: web, to: db, ...tcp(5432) })
  expect(status).toBe(200)
  expect(body).toMatchObject({ allowed: true, from: { instance_id: web }, to: { instance_id: db }, notes: [] })
  expect(body.checks.map(({ at, reason }) => [at, reason])).toEqual([
    ['route', 'same_vpc'],
    ['egress', 'rule_allows'],
    ['ingress', 'rule_allows'],
  ])
})

test('says what is missing, and follows a change of the rules at once', async () => {
  const before = await ask({ from: web, to: db, ...tcp(22) })
  expect(before.body.allowed).toBe(false)
  const missing = before.body.checks.at(-1)?.missing_rule
  expect(missing).toMatchObject({ direction: 'ingress', port_from: 22, remote: { security_group: 'sg-web' } })
  await stack.api('POST', '/v1/security-groups', { id: 'sg-more', spec: { rules: [missing] } })
  await stack.api('PATCH', `/v1/instances/${db}`, { spec: { security_groups: ['sg-db', 'sg-more'] } })
  const after = await ask({ from: web, to: db, ...tcp(22) })
  expect(after.body.allowed).toBe(true)
  expect(after.body.checks.at(-1)).toMatchObject({ security_group: 'sg-more', rule_index: 0 })
})

test('knows an instance by its private address in the VPC of the other end', async () => {
  const address = (await stack.get(db)).status.private_ip
  const { body } = await ask({ from: web, to: address, ...tcp(5432) })
  expect(body).toMatchObject({ allowed: true, to: { instance_id: db, address } })
})

test('knows an instance by its public address, from another VPC and from outside', async () => {
  await stack.api('POST', '/v1/vpcs', { id: 'vpc-far', spec: { cidr: '10.64.0.0/16' } })
  const subnet = { vpc_id: 'vpc-far', cidr: '10.64.0.0/20' }
  await stack.api('POST', '/v1/subnets', { id: 'subnet-far', spec: subnet })
  const far = await stack.createReady({ subnet_id: 'subnet-far', security_groups: ['sg-web'] })
  const rule = { direction: 'ingress', protocol: 'tcp', remote: { cidr: '0.0.0.0/0' }, description: '', port_from: 80 }
  await stack.api('POST', '/v1/security-groups', { id: 'sg-open', spec: { rules: [rule] } })
  await stack.api('PATCH', `/v1/instances/${web}`, { spec: { security_groups: ['sg-web', 'sg-open'] } })
  const back = await ask({ from: web, to: far.id, ...tcp(80) })
  expect(back.body.checks.at(-1)?.reason).toBe('other_vpc') // its subnet assigns no public address
  const address = (await stack.get(web)).status.public_ip
  expect(address).toMatch(/^203\.0\.113\./)
  for (const from of [far.id, '198.51.100.7']) {
    const { body } = await ask({ from, to: address, ...tcp(80) })
    expect(body).toMatchObject({ allowed: true, to: { instance_id: web, address } })
  }
})

test('notes that an instance does not run', async () => {
  await stack.ended(await stack.act(db, 'stop'))
  const { body } = await ask({ from: web, to: db, ...tcp(5432) })
  expect(body.notes).toEqual([`${db} is stopped: nothing is sent or answered by it.`])
})

describe('a question that cannot be answered', () => {
  test.each([
    ['an instance that is not there', { to: 'inst-00000000000000000000' }, ['/to']],
    ['the same instance twice', {}, ['/to']],
    ['no address', { to: '300.1.1.1' }, ['/to']],
    ['an address that some read as octal', { to: '010.64.0.4' }, ['/to']],
    ['no port for tcp', { to: '192.0.2.1', port: undefined }, ['/port']],
    ['a port for icmp', { to: '192.0.2.1', protocol: 'icmp' }, ['/port']],
    ['a port beyond the last', { to: '192.0.2.1', port: 65_536 }, ['/port']],
    ['port 0', { to: '192.0.2.1', port: 0 }, ['/port']],
    ['another protocol', { to: '192.0.2.1', protocol: 'sctp' }, ['/protocol']],
    ['a name', { to: 'web-1' }, ['/to']],
    ['an unknown field', { to: '192.0.2.1', ports: 1 }, ['/ports']],
    ['two strangers', { from: '192.0.2.2', to: '192.0.2.1' }, ['/from']],
  ])('%s', async (_, changes, pointers) => {
    expect(await refuse({ from: web, to: web, ...tcp(80), ...changes })).toEqual([422, ...pointers])
  })

  test('nothing', async () => {
    expect(await refuse({})).toEqual([422, '/from', '/to', '/protocol'])
  })
})
