import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess, hostSnapshot } from './dev-process.ts'

describe('a public address', () => {
  let dev: DevProcess
  let before: string[]
  let web: string
  let db: string
  const address = '203.0.113.3'

  beforeAll(async () => {
    dev = await DevProcess.open({ flags: ['--public-pool', 'default=203.0.113.0/24'] })
    before = await hostSnapshot(dev)
    web = await dev.create({ security_groups: ['sg-ssh'] }, 'web-1')
    // in another VPC
    db = await dev.create({ security_groups: ['sg-ssh'], subnet_id: 'subnet-b', vpc_id: await otherVpc() }, 'db-1')
    for (const id of [web, db]) await dev.reach(id, 'ready')
  })

  afterAll(async () => {
    await dev.down()
  })

  async function otherVpc(): Promise<string> {
    const vpc = { id: 'vpc-b', spec: { cidr: '10.9.0.0/16' } }
    const spec = { vpc_id: 'vpc-b', cidr: '10.9.1.0/24', auto_assign_public_ip: true }
    expect((await dev.client.POST('/v1/vpcs', { body: vpc })).error).toBeUndefined()
    expect((await dev.client.POST('/v1/subnets', { body: { id: 'subnet-b', spec } })).error).toBeUndefined()
    return 'vpc-b'
  }

  /** Which guest answers SSH under an address, from the host; throws when none does. */
  async function guestAt(at: string): Promise<string> {
    const quiet = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'ConnectTimeout=5', 'LogLevel=ERROR']
    const options = [...quiet, 'BatchMode=yes'].flatMap((option) => ['-o', option])
    const argv = ['ssh', '-i', join(dev.data, 'keys', 'key-001'), ...options, `root@${at}`, 'hostname']
    return (await runCommand(argv, { timeoutMs: 120_000 })).stdout.trim()
  }

  async function attach(instanceId: string): Promise<void> {
    const params = { path: { id: 'pip-a' } }
    const { error } = await dev.client.PATCH('/v1/public-ips/{id}', {
      params,
      body: { spec: { instance_id: instanceId } },
    })
    expect(error).toBeUndefined()
    for (const id of [web, db]) await dev.inForce(id)
  }

  test('that came with an instance leads to it from the host', async () => {
    const addresses = [(await dev.get(web)).status.public_ip, (await dev.get(db)).status.public_ip]
    expect(addresses).toEqual(['203.0.113.1', '203.0.113.2'])
    expect([await guestAt('203.0.113.1'), await guestAt('203.0.113.2')]).toEqual(['web-1', 'db-1'])
  })

  test('is what another instance sees, and what the rules of its groups are about', async () => {
    expect(await dev.ssh(web, 'nc -w 5 203.0.113.2 22 < /dev/null | head -c 4')).toBe('SSH-')
    await expect(dev.ssh(web, 'ping -c 1 -w 3 203.0.113.2')).rejects.toThrow()
  })

  test('takes the place of it, and moves to an instance of another VPC and back while both run on', async () => {
    const { error } = await dev.client.POST('/v1/public-ips', { body: { id: 'pip-a', spec: { instance_id: web } } })
    expect(error).toBeUndefined()
    await dev.inForce(web)
    expect(await guestAt(address)).toBe('web-1')
    await expect(guestAt('203.0.113.1')).rejects.toThrow()
    const pids = [await dev.qemuPid(web), await dev.qemuPid(db)]
    await attach(db)
    expect(await guestAt(address)).toBe('db-1')
    await attach(web)
    expect(await guestAt(address)).toBe('web-1')
    expect([await dev.qemuPid(web), await dev.qemuPid(db)]).toEqual(pids)
  })

  test('goes on leading to its instance while server and agent are killed, and after', async () => {
    await dev.end('SIGKILL')
    expect(await guestAt(address)).toBe('web-1')
    await dev.start()
    await dev.inForce(web)
    expect(await guestAt(address)).toBe('web-1')
  })

  test('is taken from a machine that is stopped', async () => {
    await dev.operation(await dev.act(web, 'stop'))
    await attach(db)
    expect(await guestAt(address)).toBe('db-1')
  })

  test('leaves nothing on the host when its instances are gone', async () => {
    for (const id of [web, db]) {
      await dev.delete(id)
      await dev.reach(id, 'terminated')
    }
    expect(await hostSnapshot(dev)).toEqual(before)
    expect((await runCommand(['ip', 'route', 'show'])).stdout).not.toContain('203.0.113')
    const { data } = await dev.client.GET('/v1/public-ips')
    expect(data?.items).toMatchObject([{ id: 'pip-a', spec: { instance_id: '' } }])
  })
})
