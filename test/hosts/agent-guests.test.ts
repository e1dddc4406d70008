import { expect, test } from 'vitest'
import { scrape } from '../observability/metrics-text.ts'
import { startStack, until } from '../stack.ts'

/** What the agent on the simulated host tells the metadata service of a guest. */
async function startWithGuest() {
  const stack = await startStack()
  const instance = await stack.createReady()
  const guest = () => stack.host.desk?.find(instance.spec.vpc_id, instance.status.private_ip) ?? null
  return { stack, instance, guest }
}

test('the metadata service finds an instance by VPC and address, and only by them', async () => {
  const { stack, instance, guest } = await startWithGuest()
  await using _ = stack
  const { id, spec, status } = instance
  expect(guest()).toMatchObject({ instance: { id, type: spec.type, user_data: '' }, nic: { ip: status.private_ip } })
  expect(stack.host.desk?.find('vpc-other', status.private_ip)).toBeNull()
  expect(stack.host.desk?.find(spec.vpc_id, '10.0.1.250')).toBeNull()
  expect(stack.host.desk?.hostId).toBe(status.host_id)
})

test('an agent that starts anew knows its guests at once, and one that was deleted no more', async () => {
  const { stack, instance, guest } = await startWithGuest()
  await using _ = stack
  await stack.restartAgent()
  expect(guest()?.instance.id).toBe(instance.id)
  await stack.ended(await stack.delete(instance.id))
  expect(guest()).toBeNull()
})

test('an address that is used again is the new instance’s', async () => {
  const { stack, instance, guest } = await startWithGuest()
  await using _ = stack
  const small = await stack.api<{ id: string }>('POST', '/v1/subnets', {
    spec: { vpc_id: instance.spec.vpc_id, cidr: '10.64.255.0/28' },
  })
  expect(small.status).toBe(201)
  const seen: string[] = []
  let address = ''
  // a freed address is handed out again last, and these are fewer than 16
  for (let round = 0; round < 16 && seen.length < 2; round++) {
    const next = await stack.createReady({ subnet_id: small.body.id })
    address ||= next.status.private_ip
    if (next.status.private_ip === address) seen.push(next.id)
    const found = stack.host.desk?.find(instance.spec.vpc_id, next.status.private_ip)
    expect(found?.instance.id).toBe(next.id)
    await stack.ended(await stack.delete(next.id))
  }
  expect(seen).toHaveLength(2)
  expect(guest()?.instance.id).toBe(instance.id)
})

test('a guest that posts its ready report is ready, and a late one of an earlier boot changes nothing', async () => {
  await using stack = await startStack({ host: { guestBootMs: 3_600_000 } })
  const { id } = await stack.create()
  await stack.reach(id, 'running')
  const report = (boot: string) => ({ boot_id: boot, user_data: 'ok' as const, exit_code: 0, output_tail: '' })
  stack.host.desk?.ready(id, report('boot-1'))
  const ready = await stack.reach(id, 'ready')
  expect(ready.status.conditions.find(({ type }) => type === 'GuestReady')).toMatchObject({ reason: 'user_data_ok' })
  await stack.ended(await stack.act(id, 'reboot', { force: true }))
  stack.host.desk?.ready(id, report('boot-1'))
  const { body } = await stack.api<typeof ready>('GET', `/v1/instances/${id}?wait_for=ready&timeout=1`)
  expect(body.status.conditions.find(({ type }) => type === 'GuestReady')?.status).toBe('unknown')
  stack.host.desk?.ready('inst-00000000000000000000', report('boot-2'))
  stack.host.desk?.ready(id, report('boot-3'))
  await stack.reach(id, 'ready')
})

test('requests of guests are counted by part and status', async () => {
  const { stack } = await startWithGuest()
  await using _ = stack
  stack.host.desk?.count('user-data', 200)
  stack.host.desk?.count('token', 401)
  const now = await until(
    () => scrape(stack),
    (said) => said.value('berth_agent_metadata_requests_total', { part: 'token', status: '401' }) === 1,
  )
  expect(now.value('berth_agent_metadata_requests_total', { part: 'user-data', status: '200' })).toBe(1)
})
