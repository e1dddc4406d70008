import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DevProcess } from './dev-process.ts'

/** Connect to the QMP socket of an instance, which then serves nobody else. */
async function holdQmp(id: string): Promise<Socket> {
  const entries = await readdir('/run/berth', { recursive: true })
  const path = entries.find((entry) => entry.endsWith(`${id}/qmp.sock`))
  if (path === undefined) throw new Error(`${id} has no QMP socket`)
  const socket = connect(join('/run/berth', path))
  await once(socket, 'data') // its greeting
  return socket
}

describe('berth dev killed with SIGKILL', () => {
  let dev: DevProcess

  beforeAll(async () => {
    dev = await DevProcess.open()
  })

  afterAll(async () => {
    await dev.down()
  })

  test('a running VM runs on and is adopted; one that was being created is finished', async () => {
    const running = await dev.create({}, 'running')
    await dev.reach(running, 'ready')
    const pid = await dev.qemuPid(running)
    const bootId = await dev.ssh(running, 'cat /proc/sys/kernel/random/boot_id')

    const creating = await dev.create({}, 'creating')
    await dev.ssh(running, '{ sleep 5; echo said without an agent >/dev/ttyS0; } >/dev/null 2>&1 &')
    await dev.end('SIGKILL')
    expect(await dev.qemuPid(running)).toBe(pid)
    await expect.poll(() => dev.unheardSerial(running), { timeout: 60_000 }).toContain('said without an agent')
    await dev.start()

    const adopted = await dev.reach(running, 'ready')
    expect(await dev.qemuPid(running)).toBe(pid)
    expect(await dev.ssh(running, 'cat /proc/sys/kernel/random/boot_id')).toBe(bootId)
    expect(adopted.status.restarts).toBe(0)
    await expect
      .poll(async () => (await dev.consoleLog(running)).split('said without an agent').length - 1, { timeout: 20_000 })
      .toBe(1)

    const finished = await dev.reach(creating, 'ready')
    expect((await dev.operation(finished.operation_id)).status).toBe('succeeded')
    expect(await dev.ssh(creating, 'hostname')).toBe('creating')
  })

  test('killed again and again during a create, it still ends with one VM', async () => {
    const id = await dev.create({}, 'stubborn')
    for (const afterMs of [5, 60, 150, 400, 1000]) {
      await new Promise((resolve) => setTimeout(resolve, afterMs)) // moments of a create, not a wait for something
      await dev.end('SIGKILL')
      await dev.start()
    }
    const instance = await dev.reach(id, 'ready')
    expect(instance.status.restarts).toBe(0)
    expect(await dev.ssh(id, 'hostname')).toBe('stubborn')
  })

  test('SIGINT ends it cleanly and leaves VMs running', async () => {
    const { data } = await dev.client.GET('/v1/instances')
    const ids = data?.items.map((item) => item.id) ?? []
    const pids = await Promise.all(ids.map((id) => dev.qemuPid(id)))
    expect(await dev.end('SIGINT')).toBe(0)
    expect(await Promise.all(ids.map((id) => dev.qemuPid(id)))).toEqual(pids)
    expect(pids).not.toContain(null)
    await dev.start()
  })

  test('VMs whose QMP sockets others hold when it is started again run on and are adopted later; one can be deleted', async () => {
    const { data } = await dev.client.GET('/v1/instances')
    const [kept = '', deleted = ''] = data?.items.map((item) => item.id) ?? []
    const pid = await dev.qemuPid(kept)
    await dev.end('SIGINT')
    const holders = await Promise.all([kept, deleted].map(holdQmp))
    try {
      await dev.start()
      const { status } = await dev.reasoned(kept, 'unreachable')
      expect(status).toMatchObject({ state: 'running', restarts: 0 })
      expect(await dev.qemuPid(kept)).toBe(pid)
      await dev.reasoned(deleted, 'unreachable')
      await dev.delete(deleted)
      await dev.reach(deleted, 'terminated')
      expect(await dev.qemuPid(deleted)).toBeNull()
    } finally {
      for (const holder of holders) holder.destroy()
    }
    const adopted = await dev.reach(kept, 'ready')
    expect(adopted.status).toMatchObject({ reason: '', restarts: 0 })
    expect(await dev.qemuPid(kept)).toBe(pid)
  })
})
