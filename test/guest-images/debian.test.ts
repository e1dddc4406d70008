import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from '../on-host/dev-process.ts'

/** A document as people write them: an account, a file, commands. */
const cloudConfig = `#cloud-config
users:
  - default
  - name: deploy
    gecos: Deployment
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
write_files:
  - path: /etc/berth-test.conf
    content: |
      greeting: "hello: world"
    permissions: '0640'
timezone: Europe/Berlin
runcmd:
  - [sh, -c, 'echo "ran as $(id -un)" > /var/tmp/runcmd']
`

const images = ['debian-12', 'debian-13'] as const

describe.each(images)('%s, built here and booted with a cloud-init document', (image) => {
  let dev: DevProcess
  let id: string

  beforeAll(async () => {
    dev = await DevProcess.open({ images: [image] })
    const spec = { type: 'cx11', image, user_data: Buffer.from(cloudConfig).toString('base64') }
    id = await dev.create(spec, 'cloud-1')
    await dev.reach(id, 'ready', 600)
  })

  afterAll(async () => {
    await dev.down()
  })

  test('cloud-init has ended cleanly', async () => {
    // exit code 0: done and nothing recoverable either; the command fails otherwise
    expect(await dev.ssh(id, 'cloud-init status --wait --long')).toMatch(/^status: done$/m)
    expect(await dev.ssh(id, 'systemctl is-system-running')).toBe('running')
  })

  test('hostname, key and account are those of the request', async () => {
    expect(await dev.ssh(id, 'hostname')).toBe('cloud-1')
    expect(await dev.ssh(id, 'id -un')).toBe('debian') // logged in with key-001, without a password
    expect(await dev.ssh(id, 'sudo id -un')).toBe('root')
    expect(await dev.ssh(id, 'id -un deploy')).toBe('deploy')
  })

  test('the document was carried out', async () => {
    expect(await dev.ssh(id, 'sudo cat /etc/berth-test.conf')).toBe('greeting: "hello: world"')
    expect(await dev.ssh(id, 'cat /var/tmp/runcmd')).toBe('ran as root')
    expect(await dev.ssh(id, 'date +%Z')).toMatch(/^CES?T$/)
  })

  test('the root file system fills the disk', async () => {
    const gib = Number(await dev.ssh(id, "df --output=size -BG / | tail -1 | tr -dc '0-9'"))
    expect(gib).toBeGreaterThanOrEqual(19)
  })

  test('an image without the ready unit gets it from the seed, as a stock image does', async () => {
    await dev.ssh(
      id,
      'sudo find /etc/systemd /usr/lib/systemd -name "berth-ready.service" -delete; sudo rm -rf /usr/lib/berth; ' +
        'sudo cloud-init clean --logs; sync',
    )
    const operation = await dev.act(id, 'reboot')
    expect((await dev.operation(operation)).status).toBe('succeeded')
    await dev.reach(id, 'ready', 600)
    await rm(join(dev.data, 'known_hosts')) // a cleaned cloud-init makes new host keys, which berth ssh refuses
    expect(await dev.ssh(id, 'systemctl is-enabled berth-ready.service')).toBe('enabled')
    expect(await dev.ssh(id, 'cloud-init status --wait')).toMatch(/status: done/)
  })

  test('it stops by the power button', async () => {
    const operation = await dev.act(id, 'stop', { grace_seconds: 120 })
    await dev.reach(id, 'stopped', 180)
    expect((await dev.operation(operation)).status).toBe('succeeded')
    expect(await dev.consoleLog(id)).toContain('poweroff.target') // it was not cut off
  })
})

test('debian-12 that does not understand its document says so in the words of cloud-init, and can be looked into', async () => {
  const dev = await DevProcess.open({ images: ['debian-12'] })
  try {
    const misindented = cloudConfig.replace('  - default', '  - default\n - x')
    const userData = Buffer.from(misindented).toString('base64')
    const id = await dev.create({ type: 'cx11', image: 'debian-12', user_data: userData }, 'misled')
    await expect(dev.reach(id, 'ready', 800)).rejects.toThrow('is not ready (impossible)')
    const { conditions } = (await dev.get(id)).status
    const guest = conditions.find(({ type }) => type === 'GuestReady')
    expect(guest).toMatchObject({ status: 'false', reason: 'user_data_ignored' })
    expect(guest?.message).toMatch(
      /: Failed loading yaml blob\. Invalid format at line 2 column 1: .*line 4, column 2/s,
    )
    expect(await dev.ssh(id, 'hostname; id -un')).toBe('misled\ndebian') // what does not come from the document is done
  } finally {
    await dev.down()
  }
})
