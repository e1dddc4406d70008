import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from './dev-process.ts'

const script = (text: string) => Buffer.from(`#!/bin/sh\n${text}\n`).toString('base64')

describe('a guest whose seed is in the network', () => {
  let dev: DevProcess
  let web: string
  let failing: string

  beforeAll(async () => {
    dev = await DevProcess.open()
    await dev.importImage('micro', 'micro-net', ['--datasource', 'network'])
    await dev.importImage('micro', 'micro-net-dhcp', ['--datasource', 'network', '--network', 'dhcp'])
    web = await dev.create(
      { image: 'micro-net', user_data: script('echo "boot of $(hostname)" >>/root/first') },
      'web-1',
    )
    const fails = script('echo "cannot reach the \\"mirror\\"" >&2; exit 3')
    failing = await dev.create({ image: 'micro-net-dhcp', user_data: fails }, 'failing')
  })

  afterAll(async () => {
    await dev.down()
  })

  test('it has no seed disk, and name, key, address and first-boot script are those of the request', async () => {
    const { status } = await dev.reach(web, 'ready')
    expect(status.conditions.find(({ type }) => type === 'GuestReady')).toMatchObject({ status: 'true' })
    expect(await readdir(join(dev.data, 'agent/instances', web))).not.toContain('seed.img')
    const argv = (await readFile(`/proc/${await dev.qemuPid(web)}/cmdline`, 'utf8')).split('\0')
    expect(argv.filter((each) => each.startsWith('virtio-blk-pci'))).toHaveLength(1)
    expect(await dev.ssh(web, 'ls /sys/class/block')).not.toContain('vdb')

    expect(await dev.ssh(web, 'hostname')).toBe('web-1')
    expect(await dev.ssh(web, 'cat /root/first')).toBe('boot of web-1')
    expect(await dev.ssh(web, 'ip -4 -o addr show dev eth0')).toContain(` ${status.private_ip}/24 `)
    expect(await dev.ssh(web, 'cat /etc/resolv.conf')).toBe('nameserver 10.0.1.1')
    expect(await clients(web)).toBe('') // its network-config says static: the lease has done its part
  })

  test('a failing first-boot script is reported with its output; by DHCP it keeps asking for its address', async () => {
    const params = { path: { id: failing }, query: { wait_for: 'ready', timeout: 240 } } as const
    const { data: instance, response } = await dev.client.GET('/v1/instances/{id}', { params })
    expect(response.headers.get('berth-wait')).toBe('impossible')
    const condition = instance?.status.conditions.find(({ type }) => type === 'GuestReady')
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
    expect(condition?.message).toContain('exit code 3')
    expect(condition?.message).toContain('cannot reach the "mirror"')
    expect(await dev.ssh(failing, 'hostname')).toBe('failing')
    expect(await dev.ssh(failing, 'ip -4 -o addr show dev eth0')).toContain(` ${instance?.status.private_ip}/24 `)
    expect(await clients(failing)).toContain('hostname:failing')
  })

  test('each took three files and told the service as well how its first boot ended', async () => {
    const metrics = async () => (await fetch(`${dev.url}/metrics`)).text()
    await expect.poll(metrics).toContain('berth_agent_metadata_requests_total{part="ready",status="204"} 2')
    expect(await metrics()).toContain('berth_agent_metadata_requests_total{part="nocloud",status="200"} 6')
  })

  test('the URL of its seed, which is secret, is neither on the console nor in a file that all may read', async () => {
    const url = await dev.ssh(web, 'cat /var/lib/berth/network-seed/url')
    expect(url).toMatch(/^http:\/\/169\.254\.169\.254\/nocloud\/[0-9a-f]{40}\/$/)
    expect(await dev.ssh(web, 'stat -c %a /var/lib/berth/network-seed /run/berth/seed')).toBe('700\n700')
    expect(await dev.consoleLog(web)).not.toContain('/nocloud/')
  })

  test('a stop and a start ask the service again and run nothing twice', async () => {
    const before = await identity(web)
    await dev.act(web, 'stop')
    await dev.reach(web, 'stopped')
    await dev.act(web, 'start')
    await dev.reach(web, 'ready')
    expect(await identity(web)).toEqual(before)
    expect(await dev.ssh(web, 'cat /root/first')).toBe('boot of web-1')
    const metrics = await (await fetch(`${dev.url}/metrics`)).text()
    expect(metrics).toContain('berth_agent_metadata_requests_total{part="nocloud",status="200"} 9')
  })

  test('one that boots while the service is away stays what it was; one that never had a seed says so', async () => {
    const before = await identity(web)
    await dev.ssh(failing, 'rm -r /var/lib/berth')
    const onceAway = 'while echo | nc -w 5 169.254.169.254 80; do sleep 1; done; reboot'
    for (const id of [web, failing]) await dev.ssh(id, `{ ${onceAway}; } >/dev/null 2>&1 &`)
    await dev.end('SIGKILL')
    const why = /\(meta-data: wget: \S.*\)/.source
    await serial(web, new RegExp(`berth: no seed from 169\\.254\\.169\\.254 ${why}; the last one is used`))
    await serial(failing, new RegExp(`berth: no seed from 169\\.254\\.169\\.254 ${why}\r?\n`))
    await dev.start()
    await dev.reach(web, 'ready')
    expect(await identity(web)).toEqual(before)
    expect(await dev.ssh(web, 'cat /root/first')).toBe('boot of web-1')

    const told = async () => (await dev.get(failing)).status.conditions.find(({ type }) => type === 'GuestReady')
    await expect.poll(told, { timeout: 60_000 }).toMatchObject({
      status: 'false',
      message: expect.stringContaining('no seed from 169.254.169.254'),
    })
    const operation = await dev.act(failing, 'reboot', { force: true })
    expect((await dev.operation(operation)).status).toBe('succeeded')
    // with a seed its first-boot script is heard of again
    await expect.poll(told, { timeout: 60_000 }).toMatchObject({ message: expect.stringContaining('exit code 3') })
  })

  /** What would be another after a boot that took the guest for a new instance. */
  async function identity(id: string): Promise<string[]> {
    const files = '/etc/dropbear/dropbear_ed25519_host_key /root/.ssh/authorized_keys /var/lib/berth/instance-id'
    return (await dev.ssh(id, `hostname; sha256sum ${files}`)).split('\n')
  }

  /** The DHCP clients of a guest. */
  async function clients(id: string): Promise<string> {
    return dev.ssh(id, 'ps -o args | grep "^udhcpc" || true')
  }

  /** Wait until a guest has written this to its serial line; no agent is needed for that. */
  async function serial(id: string, pattern: RegExp): Promise<void> {
    await expect.poll(() => dev.unheardSerial(id), { timeout: 120_000 }).toMatch(pattern)
  }
})
