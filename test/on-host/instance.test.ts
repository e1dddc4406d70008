import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { DevProcess, hostSnapshot, listProcesses } from './dev-process.ts'

/** A first-boot script that leaves a trace on the disk. */
const userData = Buffer.from('#!/bin/sh\necho "first boot of $(hostname)" >> /root/first-boot\n').toString('base64')

/** A variable that `berth dev` has and nobody else needs. */
const planted = 'BERTH_TEST_PLANTED'

describe('the life of an instance', () => {
  let dev: DevProcess
  let before: string[]
  let web: string
  let db: string

  beforeAll(async () => {
    vi.stubEnv(planted, 'secret')
    dev = await DevProcess.open()
    before = await hostSnapshot(dev)
    web = await dev.create({ disk_gb: 3, user_data: userData }, 'web-1')
    db = await dev.create({}, 'db-1')
  })

  afterAll(async () => {
    vi.unstubAllEnvs()
    await dev.down()
  })

  test('it becomes ready, with every condition true and its boot timeline filled in order', async () => {
    const instance = await dev.reach(web, 'ready')
    expect(instance.status.state).toBe('running')
    expect(instance.status.conditions.map(({ type, status }) => `${type}=${status}`)).toEqual([
      'Scheduled=true',
      'ImageReady=true',
      'DiskReady=true',
      'NetworkReady=true',
      'Booted=true',
      'GuestReady=true',
    ])
    const times = Object.values(instance.status.boot_timeline)
    expect(times).not.toContain('')
    expect(times).toEqual([...times].sort())
    const operation = await dev.operation(instance.operation_id)
    expect(operation).toMatchObject({ type: 'instance.create', status: 'succeeded', error: null })
  })

  test('one logs in with the key; hostname, disk size and first-boot script are right', async () => {
    expect(await dev.ssh(web, 'hostname')).toBe('web-1')
    expect(await dev.ssh(web, 'cat /root/first-boot')).toBe('first boot of web-1')
    const sectors = Number(await dev.ssh(web, 'cat /sys/block/vda/size'))
    expect(sectors * 512).toBe(3 * 1024 ** 3)
    const [, kilobytes] = (await dev.ssh(web, 'df -k / | tail -1')).split(/\s+/)
    expect(Number(kilobytes) * 1024).toBeGreaterThan(2.7 * 1024 ** 3) // the root file system has grown
  })

  test('the exit code of a command in the guest is passed on', async () => {
    await expect(dev.ssh(web, 'exit 7')).rejects.toMatchObject({ exitCode: 7 })
  })

  test('what it uses is counted: it has computed, read its disk and sent packets', async () => {
    const read = async () => {
      const { data } = await dev.client.GET('/v1/instances/{id}/metrics', { params: { path: { id: web } } })
      return data ?? null
    }
    let metrics = await read()
    // the host looks every 10 s: this is the first look after the login, which took more packets
    for (let i = 0; i < 150 && (metrics?.network.sent_packets_total ?? 0) <= 20; i++) {
      await new Promise((resolve) => setTimeout(resolve, 200))
      metrics = await read()
    }
    expect(metrics?.cpu.seconds_total).toBeGreaterThan(0.5)
    expect(metrics?.memory.resident_bytes).toBeGreaterThan(50_000_000)
    expect(metrics?.disk.allocated_bytes).toBeGreaterThan(100_000)
    expect(metrics?.disk.read_bytes_total).toBeGreaterThan(5_000_000)
    expect(metrics?.disk.written_bytes_total).toBeGreaterThan(100_000)
    expect(metrics?.network.sent_packets_total).toBeGreaterThan(20)
    expect(metrics?.network.received_bytes_total).toBeGreaterThan(500)
  })

  test('the VMM runs without privileges under a uid of its own', async () => {
    const { readFile } = await import('node:fs/promises')
    const [webPid, dbPid] = [await dev.qemuPid(web), await dev.qemuPid(db)]
    const uids: (string | undefined)[] = []
    for (const pid of [webPid, dbPid]) {
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      expect(status).toMatch(/^Seccomp:\s+2$/m)
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
      expect(status).toMatch(/^CapEff:\s+0+$/m)
      expect(status).toMatch(/^Groups:\s*$/m)
      uids.push(/^Uid:\s+(\d+)/m.exec(status)?.[1])
    }
    expect(Number(uids[0])).toBeGreaterThanOrEqual(1_900_000_000)
    expect(uids[0]).not.toBe(uids[1])
  })

  test('no process that outlives berth dev has its environment, with the password of a database', async () => {
    const { readFile } = await import('node:fs/promises')
    const environmentOf = async (pid: number) => (await readFile(`/proc/${pid}/environ`, 'utf8')).split('\0')
    expect(await environmentOf(dev.pid)).toContain(`${planted}=secret`)
    const programs = (await listProcesses()).filter(({ argv }) => /^(?:qemu-system|dnsmasq)/.test(argv))
    expect(programs.length).toBeGreaterThan(2)
    for (const { pid } of programs) {
      const names = (await environmentOf(pid)).map((variable) => variable.split('=')[0] ?? '')
      expect(names.filter((name) => !['PATH', 'LC_ALL', 'TZ', ''].includes(name))).toEqual([])
    }
  })

  test('two instances reach each other by address and by name', async () => {
    const peer = await dev.reach(db, 'ready')
    expect(await dev.ssh(web, `ping -c 2 -w 10 ${peer.status.private_ip}`)).toMatch(/ 0% packet loss/)
    expect(await dev.ssh(web, 'ping -c 1 -w 10 db-1.vpc.internal')).toMatch(/ 0% packet loss/)
  })

  test('a stolen address gets no answer', async () => {
    const peer = (await dev.get(db)).status.private_ip
    const stolen = 'ip addr add 10.0.1.200/32 dev eth0 && ping -c 2 -w 4 -I 10.0.1.200'
    await expect(dev.ssh(web, `${stolen} ${peer}`)).rejects.toThrow()
    await dev.ssh(web, 'ip addr del 10.0.1.200/32 dev eth0')
  })

  test('stop and start keep address and disk', async () => {
    const address = (await dev.get(web)).status.private_ip
    await dev.ssh(web, 'echo kept > /root/kept; sync')
    const stop = await dev.act(web, 'stop')
    await dev.reach(web, 'stopped')
    expect((await dev.operation(stop)).status).toBe('succeeded')
    expect(await dev.qemuPid(web)).toBe(null)
    expect((await dev.get(web)).status.private_ip).toBe(address)
    await dev.act(web, 'start')
    const again = await dev.reach(web, 'ready')
    expect(again.status.private_ip).toBe(address)
    expect(await dev.ssh(web, 'cat /root/kept')).toBe('kept')
    expect(await dev.ssh(web, 'wc -l < /root/first-boot')).toBe('1') // the first-boot script ran once only
  })

  test('reboot starts another boot, which becomes ready again', async () => {
    const bootId = await dev.ssh(web, 'cat /proc/sys/kernel/random/boot_id')
    const operation = await dev.act(web, 'reboot')
    expect((await dev.operation(operation)).status).toBe('succeeded')
    await dev.reach(web, 'ready')
    expect(await dev.ssh(web, 'cat /proc/sys/kernel/random/boot_id')).not.toBe(bootId)
  })

  test('a guest that powers itself off is stopped, and says so', async () => {
    await dev.ssh(db, 'poweroff').catch(() => undefined) // the connection ends with it
    const instance = await dev.reach(db, 'stopped')
    expect(instance.status.reason).toBe('guest_shutdown')
  })

  /** One that is left in the network goes on, and hears nothing more of the one that went. */
  async function expectUnharmed(id: string, goneAddress: string): Promise<void> {
    expect(await dev.ssh(id, 'hostname')).toBe('web-1')
    await expect(dev.ssh(id, `ping -c 1 -w 3 ${goneAddress}`)).rejects.toThrow()
    await expect(dev.ssh(id, 'nslookup db-1.vpc.internal')).rejects.toThrow()
  }

  test('after DELETE nothing of either is left on the host, and the console log is still readable', async () => {
    const address = (await dev.get(db)).status.private_ip
    for (const id of [db, web]) {
      await dev.delete(id)
      const instance = await dev.reach(id, 'terminated')
      expect((await dev.operation(instance.operation_id)).status).toBe('succeeded')
      expect(await dev.consoleLog(id)).toContain('BERTH-READY 1 ')
      if (id === db) await expectUnharmed(web, address)
    }
    expect(await hostSnapshot(dev)).toEqual(before)
  })
})
