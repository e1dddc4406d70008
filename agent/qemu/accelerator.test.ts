import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { missingPackages, runtimePackages } from '../../bin/host-packages.ts'
import { CommandError, runCommand } from '../sys/run-command.ts'
import { probeFirmware } from './accelerator.ts'

const missing = await missingPackages(runtimePackages)
if (missing.length > 0) console.error('!! QEMU is not installed: the KVM probe is NOT tested')

describe.skipIf(missing.length > 0)('the firmware of the KVM probe', () => {
  let directory: string

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-probe-'))
  })

  afterAll(async () => {
    await rm(directory, { recursive: true, force: true })
  })

  async function run(firmware: Buffer, timeoutMs = 10_000): Promise<CommandError> {
    const rom = join(directory, 'probe.rom')
    await writeFile(rom, firmware)
    const machine = ['-machine', 'pc', '-accel', 'tcg', '-m', '16', '-nodefaults', '-display', 'none', '-no-reboot']
    const device = ['-serial', 'stdio', '-bios', rom, '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04']
    const ended = runCommand(['qemu-system-x86_64', ...machine, ...device], { timeoutMs })
    return ended.then(
      () => Promise.reject(new Error('QEMU exited with 0')),
      (error: unknown) => (error instanceof CommandError ? error : Promise.reject(error)),
    )
  }

  test('prints its mark and exits with 33 where code runs', async () => {
    const ended = await run(probeFirmware())
    expect(ended.exitCode).toBe(33)
    expect(ended.stdoutTail).toContain('KVM-PROBE-OK')
  })

  test('a firmware that never gets through is told by the time limit', async () => {
    const stuck = probeFirmware()
    stuck.fill(0xf4, 0x100, 0x180) // hlt
    stuck.writeUInt16LE(0xfeeb, 0x100) // jmp to itself
    const ended = await run(stuck, 2000)
    expect(ended.exitCode).not.toBe(33)
  })
})
