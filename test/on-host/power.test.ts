import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { identifyProcess, isAlive, type ProcessIdentity, waitForExit } from '@berth/agent/sys/process.ts'
import { runCommand } from '@berth/agent/sys/run-command.ts'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { DevProcess, hostSnapshot } from './dev-process.ts'

describe('a machine that goes off', () => {
  let dev: DevProcess
  let id: string
  let before: string[]

  beforeAll(async () => {
    dev = await DevProcess.open()
    before = await hostSnapshot(dev)
    id = await dev.create({ on_panic: 'none' }, 'web-1')
    await dev.reach(id, 'ready')
  })

  afterAll(async () => {
    await dev.down()
  })

  async function qemu(): Promise<ProcessIdentity> {
    const pid = await dev.qemuPid(id)
    const identity = pid === null ? null : await identifyProcess(pid)
    if (identity === null) throw new Error('QEMU does not run')
    return identity
  }

  /** Kill the QEMU process and wait until it is gone. */
  async function killQemu(): Promise<ProcessIdentity> {
    const killed = await qemu()
    process.kill(killed.pid, 'SIGKILL')
    expect(await waitForExit(killed, 5000)).toBe(true)
    return killed
  }

  /** Wait until the machine is ready under another process than before. */
  async function readyWithout(gone: ProcessIdentity) {
    for (;;) {
      const pid = await dev.qemuPid(id)
      if (pid !== null && pid !== gone.pid) break
      await new Promise((resolve) => setTimeout(resolve, 50)) // until then the document may be the one before
    }
    return dev.reach(id, 'ready')
  }

  test('by SIGKILL of its QEMU is started again, which is counted, and becomes ready again', async () => {
    const first = await dev.get(id)
    const again = await readyWithout(await killQemu())
    expect(again.status).toMatchObject({ state: 'running', restarts: 1, private_ip: first.status.private_ip })
    expect(again.metadata.generation).toBe(first.metadata.generation)
    expect(await dev.ssh(id, 'hostname')).toBe('web-1')
  })

  test('in all but its process, by a panic of its kernel, says so until a reboot, which gives it no grace', async () => {
    const panicked = await qemu()
    await dev.ssh(id, '(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &')
    const { status } = await dev.reasoned(id, 'guest_panicked')
    expect(status.state).toBe('running')
    const [booted, ready] = status.conditions.slice(-2)
    expect(booted).toMatchObject({ type: 'Booted', status: 'false', reason: 'guest_panicked' })
    expect(ready).toMatchObject({ type: 'GuestReady', status: 'false', reason: 'guest_panicked' })
    expect(await isAlive(panicked)).toBe(true)
    await vi.waitFor(
      async () => expect(await dev.consoleLog(id)).toContain('Kernel panic - not syncing: sysrq triggered crash'),
      { timeout: 20_000, interval: 500 }, // it comes after the condition, about once a second
    )
    const reboot = await dev.act(id, 'reboot', { grace_seconds: 3600 })
    expect((await dev.operation(reboot)).status).toBe('succeeded')
    expect((await readyWithout(panicked)).status).toMatchObject({ reason: '', restarts: 1 })
  })

  test('together with its agent comes back when the agent is started again', async () => {
    expect(await dev.end('SIGINT')).toBe(0)
    const gone = await killQemu()
    await dev.start()
    expect((await readyWithout(gone)).status).toMatchObject({ state: 'running', reason: '' })
  })

  test('only after its grace, when its guest ignores the power button', async () => {
    const running = await qemu()
    await dev.ssh(id, 'killall acpid')
    const pressedAt = performance.now()
    const stop = await dev.act(id, 'stop', { grace_seconds: 3 })
    expect((await dev.reach(id, 'stopped')).status.reason).toBe('')
    expect(performance.now() - pressedAt).toBeGreaterThan(2900)
    expect((await dev.operation(stop)).status).toBe('succeeded')
    expect(await isAlive(running)).toBe(false)
  })

  test('by force, when its QEMU does not answer any more', async () => {
    await dev.act(id, 'start')
    await dev.reach(id, 'running')
    const stopped = await qemu()
    process.kill(stopped.pid, 'SIGSTOP')
    const { status } = await dev.reasoned(id, 'unreachable')
    expect(status.state).toBe('running')
    expect(status.conditions.at(-2)).toMatchObject({ type: 'Booted', status: 'unknown', reason: 'unreachable' })
    process.kill(stopped.pid, 'SIGCONT')
    await dev.reasoned(id, '')
    process.kill(stopped.pid, 'SIGSTOP')
    const stop = await dev.act(id, 'stop', { force: true })
    await dev.reach(id, 'stopped')
    expect((await dev.operation(stop)).status).toBe('succeeded')
    expect(await isAlive(stopped)).toBe(false)
  })

  test('never, when its QEMU does not come up: the create ends with the cause, and nothing is left', async () => {
    await dev.delete(id)
    await dev.reach(id, 'terminated')
    await dev.end('SIGINT')
    const programs = await mkdtemp(join(tmpdir(), 'berth-programs-'))
    const path = process.env.PATH ?? ''
    try {
      await chmod(programs, 0o755)
      // a QEMU that hangs before it opens anything; what the agent asks of it besides goes to the real one
      const { stdout } = await runCommand(['which', 'qemu-system-x86_64'])
      const script = `#!/bin/sh\ncase " $* " in *" -uuid "*) exec sleep 3600 ;; esac\nexec ${stdout.trim()} "$@"\n`
      await writeFile(join(programs, 'qemu-system-x86_64'), script, { mode: 0o755 })
      process.env.PATH = `${programs}${delimiter}${path}`
      process.env.BERTH_STEP_DEADLINES = 'boot=1'
      await dev.start()
      id = await dev.create({}, 'never')
      const { status, operation_id: create } = await dev.reach(id, 'terminated')
      expect(status.reason).toBe('boot_deadline_exceeded')
      const operation = await dev.operation(create)
      expect(operation).toMatchObject({ status: 'failed', error: { code: 'boot_deadline_exceeded' } })
      expect(operation.error?.message).toBe('The step boot did not end within 1 s: QEMU has not opened its QMP socket')
      expect(operation.error?.hint).toContain('qemu.log')
      expect(operation.steps.find((step) => step.name === 'boot')).toMatchObject({ attempt: 3, status: 'failed' })
      expect(await hostSnapshot(dev)).toEqual(before)
    } finally {
      process.env.PATH = path
      delete process.env.BERTH_STEP_DEADLINES
      await rm(programs, { recursive: true })
    }
  })
})
