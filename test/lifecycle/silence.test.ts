import type { Condition, Instance } from '@berth/contract/instances/instances.ts'
import { expect, test } from 'vitest'
import { startStack, testImages, until } from '../stack.ts'

const guestReady = ({ status }: Instance): Condition | undefined =>
  status.conditions.find(({ type }) => type === 'GuestReady')

test('a guest that says nothing is said to, also by the next agent, and counts as soon as it speaks', async () => {
  const images = testImages.map((image) => ({ ...image, ready_timeout_seconds: 1 }))
  await using stack = await startStack({ images, host: { guestBootMs: 3_600_000 } })
  const { id } = await stack.create()
  const silent = await until(
    () => stack.get(id),
    (instance) => guestReady(instance)?.reason === 'nothing_heard',
  )
  expect(guestReady(silent)).toMatchObject({ status: 'unknown', message: expect.stringContaining('console log') })
  expect(silent.status).toMatchObject({ state: 'running', boot_timeline: { guest_ready_at: '' } })
  // whoever waits for it goes on waiting
  const waited = await stack.api('GET', `/v1/instances/${id}?wait_for=ready&timeout=0`)
  expect(waited.headers['berth-wait']).toBe('timed-out')
  await stack.stopAgent()
  await stack.startAgent()
  const waiting = stack.reach(id, 'ready')
  stack.host.vmmOf(id)?.saysReady()
  const ready = guestReady(await waiting)
  expect(ready).toMatchObject({ status: 'true', reason: '', message: '' })
})

test('an image made through the API says how long its guests have, and the default is shown', async () => {
  await using stack = await startStack({ agent: false })
  const spec = {
    source_url: 'https://images.example/a.qcow2',
    sha256: 'ab'.repeat(32),
    min_disk_gb: 1,
    default_user: 'a',
  }
  const made = (id: string, more: object) => stack.api('POST', '/v1/images', { id, spec: { ...spec, ...more } })
  expect(await made('slow', { ready_timeout_seconds: 900 })).toMatchObject({
    status: 201,
    body: { spec: { ready_timeout_seconds: 900 } },
  })
  expect(await made('usual', {})).toMatchObject({ status: 201, body: { spec: { ready_timeout_seconds: 300 } } })
  for (const seconds of [0, -1, 86_401, 1.5, '300', null]) {
    expect(await made('wrong', { ready_timeout_seconds: seconds })).toMatchObject({ status: 422 })
  }
})
