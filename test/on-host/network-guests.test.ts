import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from './dev-process.ts'

describe('security groups between real machines', () => {
  let dev: DevProcess
  let client: string
  let server: string
  let address: string

  beforeAll(async () => {
    dev = await DevProcess.open()
    client = await dev.create({ security_groups: ['sg-web'] }, 'client')
    server = await dev.create({ security_groups: ['sg-ssh'] }, 'server')
    await dev.reach(client, 'ready')
    address = (await dev.reach(server, 'ready')).status.private_ip
  })

  afterAll(() => dev.down())

  const ping = () => dev.ssh(client, `ping -c 1 -w 3 ${address} >/dev/null && echo yes || echo no`)

  async function patch(path: string, spec: object): Promise<void> {
    const response = await fetch(`${dev.url}${path}`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ spec }),
    })
    expect(response.status, await response.text()).toBe(200)
  }

  test('what the groups do not name is dropped, and a rule that is added or taken away bites while both run', async () => {
    expect(await ping()).toBe('no')
    const { data } = await dev.client.GET('/v1/security-groups/{id}', { params: { path: { id: 'sg-ssh' } } })
    const rules = data?.spec.rules ?? []
    const icmp = { direction: 'ingress', protocol: 'icmp', remote: { security_group: 'sg-web' }, description: '' }
    await patch('/v1/security-groups/sg-ssh', { rules: [...rules, icmp] })
    await expect.poll(ping, { timeout: 20_000 }).toBe('yes')
    await patch('/v1/security-groups/sg-ssh', { rules })
    await expect.poll(ping, { timeout: 20_000 }).toBe('no')
  })

  test('so do the groups of an instance', async () => {
    await patch('/v1/security-groups/sg-web', {
      rules: [
        { direction: 'ingress', protocol: 'icmp', remote: { cidr: '10.0.0.0/16' }, description: '' },
        { direction: 'egress', protocol: 'any', remote: { cidr: '0.0.0.0/0' }, description: '' },
      ],
    })
    await patch(`/v1/instances/${server}`, { security_groups: ['sg-web'] })
    await expect.poll(ping, { timeout: 20_000 }).toBe('yes')
    await patch(`/v1/instances/${server}`, { security_groups: ['sg-ssh'] })
    await expect.poll(ping, { timeout: 20_000 }).toBe('no')
  })
})
