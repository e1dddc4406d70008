import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from './dev-process.ts'

describe('what a guest is told and what it reports', () => {
  let dev: DevProcess

  beforeAll(async () => {
    dev = await DevProcess.open()
    await dev.importImage('micro', 'micro-dhcp', ['--network', 'dhcp', '--title', 'micro by DHCP'])
  })

  afterAll(async () => {
    await dev.down()
  })

  test('a failing first-boot script gives GuestReady=false with the end of its output; an imported image boots by DHCP', async () => {
    const script = '#!/bin/sh\necho "cannot reach the \\"mirror\\"" >&2\nexit 3\n'
    const failing = await dev.create({ user_data: Buffer.from(script).toString('base64') }, 'failing')
    const byDhcp = await dev.create({ image: 'micro-dhcp' }, 'by-dhcp')

    const params = { path: { id: failing }, query: { wait_for: 'ready', timeout: 240 } } as const
    const { data: instance, response } = await dev.client.GET('/v1/instances/{id}', { params })
    expect(response.headers.get('berth-wait')).toBe('impossible')
    const condition = instance?.status.conditions.find(({ type }) => type === 'GuestReady')
    expect(condition).toMatchObject({ status: 'false', reason: 'user_data_failed' })
    expect(condition?.message).toContain('exit code 3')
    expect(condition?.message).toContain('cannot reach the "mirror"')
    expect(instance?.status.state).toBe('running') // one can log in and look
    expect(await dev.ssh(failing, 'hostname')).toBe('failing')

    const dhcp = await dev.reach(byDhcp, 'ready')
    const address = await dev.ssh(byDhcp, 'ip -4 -o addr show dev eth0')
    expect(address).toContain(` ${dhcp.status.private_ip}/24 `)
    expect(await dev.ssh(byDhcp, 'cat /etc/resolv.conf')).toContain('nameserver 10.0.1.1')
  })

  test('an image that cannot be downloaded ends the create with its URL and the cause', async () => {
    const id = await dev.create({ image: 'ubuntu-22.04', disk_gb: 10 })
    const instance = await dev.reach(id, 'terminated')
    expect(instance.status.reason).toBe('image_download_failed')
    expect(instance.status.message).toContain('https://cloud-images.ubuntu.com/jammy/')
    expect(instance.status.message).toMatch(/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH/)
    const operation = await dev.operation(instance.operation_id)
    expect(operation.status).toBe('failed')
    expect(operation.steps.find((step) => step.name === 'image')?.error?.message).toContain('cloud-images.ubuntu.com')
  })
})
