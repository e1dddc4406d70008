import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess, hostSnapshot, type InstanceDocument } from './dev-process.ts'

const service = 'http://169.254.169.254'

describe('the metadata service in the namespaces of real VPCs', () => {
  let dev: DevProcess
  let before: string[]

  beforeAll(async () => {
    dev = await DevProcess.open()
    for (const vpc of ['vpc-one', 'vpc-two']) {
      const made = await dev.client.POST('/v1/vpcs', { body: { id: vpc, spec: { cidr: '10.0.0.0/16' } } })
      const spec = { vpc_id: vpc, cidr: '10.0.1.0/24' }
      const subnet = await dev.client.POST('/v1/subnets', { body: { id: `subnet-${vpc.slice(4)}`, spec } })
      expect([made.response.status, subnet.response.status]).toEqual([201, 201])
    }
    before = await hostSnapshot(dev)
  })

  afterAll(async () => {
    await dev.down()
  })

  const script = (text: string) => Buffer.from(`#!/bin/sh\necho ${text} >/root/told\n`).toString('base64')

  test('two guests with the same address in two VPCs are each told their own data', async () => {
    const make = (name: string) => dev.create({ subnet_id: `subnet-${name}`, user_data: script(name) }, name)
    const ids = [await make('one'), await make('two')]
    const [one, two] = await Promise.all(ids.map((id) => dev.reach(id, 'ready')))
    expect(one?.status.private_ip).toBe(two?.status.private_ip)
    for (const [index, name] of ['one', 'two'].entries()) {
      const id = ids[index] ?? ''
      expect(await get(dev, id, '/latest/meta-data/instance-id')).toBe(id)
      expect(await get(dev, id, '/latest/user-data')).toContain(name)
    }
    // both said on the serial line and to the service that they are ready
    const metrics = await (await fetch(`${dev.url}/metrics`)).text()
    expect(metrics).toContain('berth_agent_metadata_requests_total{part="ready",status="204"} 2')
  })

  test('an agent that is killed and starts anew serves them again, and their tokens are good', async () => {
    const [instance] = (await dev.client.GET('/v1/instances')).data?.items ?? []
    const id = instance?.id ?? ''
    const token = await takeToken(dev, id)
    await dev.end('SIGKILL')
    await dev.start()
    expect(await get(dev, id, '/latest/meta-data/instance-id', token)).toBe(id)
  })

  test('answers go no further than the guest itself', async () => {
    const { network } = await first(dev)
    const { stdout } = await runCommand([
      'nsenter',
      `--net=/run/netns/${network.netns}`,
      '--',
      'nft',
      'list',
      'chain',
      'inet',
      'vpc',
      'output',
    ])
    expect(stdout).toContain('ip ttl set 1')
  })

  test('nothing of it is left when the VPCs go: no listener, no namespace that lives on unseen', async () => {
    const { network } = await first(dev)
    // a link into the namespace goes only with the namespace itself, not with its name
    const probe = ['ip', 'link', 'add', 'probe0', 'type', 'veth', 'peer', 'name', 'probe1', 'netns', network.netns]
    await runCommand(probe)
    for (const { id } of (await dev.client.GET('/v1/instances')).data?.items ?? []) {
      const operation = await dev.delete(id)
      expect((await dev.operation(operation)).status).toBe('succeeded')
    }
    await expect
      .poll(async () => (await runCommand(['ip', '-brief', 'link', 'show'])).stdout, { timeout: 10_000 })
      .not.toContain('probe0')
    expect(await hostSnapshot(dev)).toEqual(before)
  })

  test('the secret of the host is for root alone', async () => {
    const { stdout } = await runCommand(['stat', '-c', '%a', join(dev.data, 'agent/metadata.key')])
    expect(stdout.trim()).toBe('600')
    const secret = (await readFile(join(dev.data, 'agent/metadata.key'), 'utf8')).trim()
    expect(dev.log).not.toContain(secret)
    expect(dev.log).not.toContain('/nocloud/')
  })
})

/** The network of any instance that is there. */
async function first(dev: DevProcess): Promise<InstanceDocument['status']> {
  const [instance] = (await dev.client.GET('/v1/instances')).data?.items ?? []
  if (instance === undefined) throw new Error('there is no instance')
  return instance.status
}

/** busybox's wget cannot PUT. */
function takeToken(dev: DevProcess, id: string): Promise<string> {
  const head =
    'PUT /latest/api/token HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n'
  return retried(
    () => dev.ssh(id, `{ printf '${head}'; sleep 1; } | nc -w 5 169.254.169.254 80 | tail -n 1`),
    (token) => token.includes('.'),
  )
}

async function get(dev: DevProcess, id: string, path: string, token?: string): Promise<string> {
  const header = `X-aws-ec2-metadata-token: ${token ?? (await takeToken(dev, id))}`
  return retried(
    () => dev.ssh(id, `wget -qO - --header '${header}' ${service}${path} 2>&1 || true`),
    (text) => text !== '' && !text.startsWith('wget:'),
  )
}

/** An agent that has just started takes a moment until it listens. */
async function retried(ask: () => Promise<string>, good: (text: string) => boolean): Promise<string> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const text = await ask()
    if (good(text)) return text
  }
  throw new Error(`no answer: ${await ask()}`)
}
