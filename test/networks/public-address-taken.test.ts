import { afterAll, beforeAll, expect, test } from 'vitest'
import { scrape } from '../observability/metrics-text.ts'
import { type Stack, until } from '../stack.ts'
import { auto, start } from './public-ip-stack.ts'

let stack: Stack
beforeAll(async () => {
  stack = await start()
})
afterAll(() => stack.close())

const network = async (id: string) =>
  (await stack.get(id)).status.conditions.find(({ type }) => type === 'NetworkReady')

async function withoutAddress(): Promise<number | undefined> {
  const { samples } = await scrape(stack)
  return samples.find(({ name }) => name === 'berth_agent_instances_without_public_address')?.value
}

test('a public address that another installation on the host has is told of until it is let go of', async () => {
  const other = await stack.createReady({})
  const { id, status } = await stack.createReady(auto)
  expect(await withoutAddress()).toBe(0)
  stack.host.takeAddress(status.public_ip, 'installation abc123 (vu0)')
  const told = await until(
    () => network(id),
    (condition) => condition?.status === 'false',
  )
  expect(told).toMatchObject({
    reason: 'public_address_taken',
    message: `${status.public_ip} is led elsewhere on this host, by installation abc123 (vu0)`,
  })
  expect((await network(other.id))?.status).toBe('true')
  expect(await withoutAddress()).toBe(1)
  stack.host.takeAddress(status.public_ip, null)
  await until(
    () => network(id),
    (condition) => condition?.status === 'true',
  )
  expect(await withoutAddress()).toBe(0)
})
