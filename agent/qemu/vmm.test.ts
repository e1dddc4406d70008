import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { GuestState } from '../host-driver.ts'
import { identifyProcess, isAlive, type ProcessIdentity } from '../sys/process.ts'
import { QemuVmm } from './vmm.ts'

const uuid = '11111111-2222-3333-4444-555555555555'
const pace = { lookMs: 150, continueMs: 5, provenMs: 50 }

/** What stands where QEMU would: it speaks QMP as QEMU does, and says of its guest what it is told to say. */
class FakeQemu {
  status = 'running'
  /** What `query-block` says of the disk. */
  ioStatus = 'ok'
  /** It reads nothing and answers nothing, as a stopped process; what came meanwhile is answered when it goes on. */
  isStopped = false
  /** Somebody else holds the socket: who comes is not greeted. */
  isHeld = false
  uuid = uuid
  readonly commands: string[] = []
  readonly #waiting: (() => void)[] = []
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  onCont = () => {}

  constructor() {
    this.#server = createServer((socket) => this.#serve(socket))
  }

  async listen(path: string): Promise<void> {
    this.#server.listen(path)
    await once(this.#server, 'listening')
  }

  /** Tell of an event that may have changed the status. */
  tell(status: string): void {
    this.status = status
    this.#send({ event: 'STOP', timestamp: { seconds: 1, microseconds: 1 } })
  }

  /** Go on after a stop, or after the other client has left. */
  proceed(): void {
    this.isStopped = false
    this.isHeld = false
    for (const then of this.#waiting.splice(0)) then()
  }

  /** Questions that it has not answered. */
  get unanswered(): number {
    return this.#waiting.length
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket))
    const greet = () => {
      socket.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`)
      socket.setEncoding('utf8').on('data', (text: string) => {
        for (const line of text.split('\n')) if (line !== '') this.#take(socket, JSON.parse(line))
      })
    }
    this.#whenFree(greet)
  }

  #take(socket: Socket, { execute, id }: { execute: string; id: number }): void {
    this.#whenFree(() => {
      this.commands.push(execute)
      if (execute === 'cont') this.onCont()
      socket.write(`${JSON.stringify({ return: this.#answer(execute), id })}\n`)
    })
  }

  #answer(command: string): unknown {
    if (command === 'query-uuid') return { UUID: this.uuid }
    if (command === 'query-status')
      return { status: this.status, singlestep: false, running: this.status === 'running' }
    if (command === 'query-block') return [{ device: '', qdev: '/machine/disk', 'io-status': this.ioStatus }]
    return {}
  }

  #whenFree(then: () => void): void {
    if (this.isStopped || this.isHeld) this.#waiting.push(then)
    else then()
  }

  #send(message: unknown): void {
    for (const socket of this.#sockets) socket.write(`${JSON.stringify(message)}\n`)
  }
}

describe('a VMM', () => {
  let directory: string
  let child: ChildProcess
  let identity: ProcessIdentity
  let qemu: FakeQemu
  const path = () => join(directory, 'qmp.sock')

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-vmm-'))
    child = spawn('sleep', ['600'])
    const found = await identifyProcess(child.pid ?? 0)
    if (found === null) throw new Error('sleep did not start')
    identity = found
    qemu = new FakeQemu()
    await qemu.listen(path())
  })

  afterEach(async () => {
    qemu.close()
    child.kill('SIGKILL')
    await rm(directory, { recursive: true })
  })

  /** Take the VMM over as an agent does that finds it; gives also what was told of it, in order. */
  async function adopt(timeoutMs = 2000): Promise<{ vmm: QemuVmm; told: GuestState[] }> {
    const vmm = await QemuVmm.adopt(identity, path(), uuid, timeoutMs, pace)
    onTestFinished(() => vmm.detach())
    const told: GuestState[] = []
    vmm.onChange(() => told.push(vmm.guestState()))
    return { vmm, told }
  }

  const becomes = (vmm: QemuVmm, state: GuestState) => vi.waitFor(() => expect(vmm.guestState()).toBe(state), 5000)

  test.each([
    ['guest-panicked', 'guest_panicked'],
    ['internal-error', 'internal_error'],
    ['suspended', 'suspended'],
    ['io-error', 'io_error'],
    ['paused', 'paused'],
    ['watchdog', 'paused'],
    ['shutdown', 'off'],
    ['prelaunch', 'running'],
  ] as const)('that says %s is %s, whether it is told by an event or found so', async (status, state) => {
    const { vmm } = await adopt()
    expect(vmm.guestState()).toBe('running')
    qemu.tell(status)
    await becomes(vmm, state)
    vmm.detach()
    expect((await adopt()).vmm.guestState()).toBe(state)
    expect(await isAlive(identity)).toBe(true)
  })

  test('whose event was lost is looked at all the same', async () => {
    const { vmm } = await adopt()
    qemu.status = 'guest-panicked'
    await becomes(vmm, 'guest_panicked')
  })

  test('that is stopped is unreachable, is asked once, and is what its late answer says', async () => {
    const { vmm, told } = await adopt()
    qemu.isStopped = true
    await becomes(vmm, 'unreachable')
    await expect(vmm.usage()).rejects.toThrow('does not answer')
    for (let look = 0; look < 5; look++) await new Promise((resolve) => setTimeout(resolve, pace.lookMs))
    expect(qemu.unanswered).toBe(1)
    qemu.status = 'suspended'
    qemu.proceed()
    await becomes(vmm, 'suspended')
    expect(told).toEqual(['unreachable', 'suspended'])
    expect(await isAlive(identity)).toBe(true)
  })

  test('that has panicked and is silent then has panicked', async () => {
    const { vmm, told } = await adopt()
    qemu.tell('guest-panicked')
    await becomes(vmm, 'guest_panicked')
    qemu.isStopped = true
    for (let look = 0; look < 5; look++) await new Promise((resolve) => setTimeout(resolve, pace.lookMs))
    expect(told).toEqual(['guest_panicked'])
  })

  test('whose socket somebody holds is unreachable and runs on; it is taken over when the socket is free', async () => {
    qemu.isHeld = true
    const { vmm, told } = await adopt(50)
    expect(vmm.guestState()).toBe('unreachable')
    expect(told).toEqual(['unreachable'])
    qemu.proceed()
    await becomes(vmm, 'running')
    expect(await isAlive(identity)).toBe(true)
  })

  test('whose socket leads to another machine is unreachable and runs on', async () => {
    qemu.uuid = '99999999-2222-3333-4444-555555555555'
    const { vmm } = await adopt(50)
    expect(vmm.guestState()).toBe('unreachable')
    qemu.uuid = uuid
    await becomes(vmm, 'running')
    expect(await isAlive(identity)).toBe(true)
  })

  test('that has no socket yet is unreachable until it has', async () => {
    qemu.close()
    const { vmm } = await adopt(50)
    expect(vmm.guestState()).toBe('unreachable')
    qemu = new FakeQemu()
    await rm(path(), { force: true })
    await qemu.listen(path())
    await becomes(vmm, 'running')
  })

  test('that cannot be asked is ended by a signal to its process', async () => {
    qemu.isHeld = true
    const { vmm, told } = await adopt(50)
    const exit = once(child, 'exit')
    await vmm.quit()
    expect(await exit).toEqual([null, 'SIGTERM'])
    expect(vmm.exited()).toBe(true)
    expect(qemu.commands).toEqual([])
    expect(told).toHaveLength(2)
  })

  test('that ends while it cannot be asked is seen to have ended', async () => {
    qemu.isHeld = true
    const { vmm } = await adopt(50)
    child.kill('SIGKILL')
    await vi.waitFor(() => expect(vmm.exited()).toBe(true), 5000)
  })

  test('whose host has no room waits and says so once, however often it is told to go on in vain', async () => {
    const { vmm, told } = await adopt()
    qemu.ioStatus = 'nospace'
    let conts = 0
    qemu.onCont = () => {
      qemu.tell('running')
      if (++conts < 4) qemu.tell('io-error')
    }
    qemu.tell('io-error')
    await becomes(vmm, 'storage_full')
    await becomes(vmm, 'running')
    expect(told).toEqual(['storage_full', 'running'])
    expect(conts).toBe(4)
  })

  test('that sleeps is woken by the power button', async () => {
    const { vmm } = await adopt()
    qemu.tell('suspended')
    await becomes(vmm, 'suspended')
    await vmm.powerButton()
    expect(qemu.commands.slice(-2)).toEqual(['system_wakeup', 'system_powerdown'])
  })
})
