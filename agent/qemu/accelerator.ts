import { access, chown, constants, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CommandError, runCommand } from '../sys/run-command.ts'
import { sandboxArgs } from './argv.ts'

/** How guests are run on this host and why. */
export interface Accelerator {
  kind: 'kvm' | 'tcg'
  reason: string
}

/** Time the probe's firmware gets; where KVM works it needs less than a tenth of it. */
const probeMs = 3000
const marker = 'KVM-PROBE-OK'
/** isa-debug-exit makes QEMU exit with (value << 1) | 1; the firmware writes 16. */
const probeExitCode = 33

/**
 * Whether KVM runs guests here. That /dev/kvm opens proves nothing: on some nested hosts a guest never gets anywhere.
 * So a firmware of ours counts to 20 million and exits; only an exit in time, under the uid, groups and sandbox that
 * guests get, counts. The answer is kept in `cacheFile` for as long as the host is up and QEMU is the same.
 */
export async function chooseAccelerator(options: {
  cacheFile: string
  uid: number
  hostBootId: string
}): Promise<Accelerator> {
  const key = await cacheKey(options.hostBootId)
  const cached = await readCache(options.cacheFile, key)
  if (cached !== null) return cached
  const accelerator = await probe(options.uid)
  await writeFile(options.cacheFile, JSON.stringify({ key, accelerator }), { mode: 0o600 })
  return accelerator
}

/** The group that may open /dev/kvm, which the VMM needs besides its own; null when there is no such device. */
export async function kvmGroup(): Promise<number | null> {
  try {
    return (await stat('/dev/kvm')).gid
  } catch {
    return null
  }
}

async function probe(uid: number): Promise<Accelerator> {
  const group = await kvmGroup()
  if (group === null) return { kind: 'tcg', reason: 'this machine has no /dev/kvm: guests are emulated' }
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch {
    return { kind: 'tcg', reason: '/dev/kvm cannot be opened: guests are emulated' }
  }
  const directory = await mkdtemp(join(tmpdir(), 'berth-kvm-probe-'))
  try {
    const rom = join(directory, 'probe.rom')
    await writeFile(rom, probeFirmware())
    await chown(rom, uid, uid)
    await chown(directory, uid, uid)
    return await runProbe(rom, uid, group)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function runProbe(rom: string, uid: number, group: number): Promise<Accelerator> {
  const argv = [
    ...['setpriv', `--reuid=${uid}`, `--regid=${uid}`, `--groups=${group}`],
    ...['timeout', '--signal=KILL', String(probeMs / 1000)],
    ...['qemu-system-x86_64', '-machine', 'pc', '-accel', 'kvm', '-cpu', 'host', '-m', '16'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio', '-bios', rom],
    ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04', ...sandboxArgs],
  ]
  try {
    await runCommand(argv, { timeoutMs: probeMs + 5000 })
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    const { exitCode, stdoutTail } = error
    if (exitCode === probeExitCode && stdoutTail.includes(marker)) {
      return { kind: 'kvm', reason: '/dev/kvm ran the probe' }
    }
    const late = exitCode === 137 || exitCode === 124
    const why = late ? `the probe did not get through within ${probeMs / 1000} s` : firstLine(error)
    return { kind: 'tcg', reason: `/dev/kvm is there but does not run guests (${why}): guests are emulated` }
  }
  return { kind: 'tcg', reason: '/dev/kvm is there but the probe ended without its mark: guests are emulated' }
}

/**
 * 64 KiB of firmware for the x86 reset vector (Intel SDM vol. 3, 10.1.4): count down from 20 million, write the mark to
 * COM1, exit through port 0xf4. The counting tells real execution from instruction-by-instruction emulation.
 */
export function probeFirmware(): Buffer {
  const entry = 0x100
  const text = 0x200
  const loops = Buffer.alloc(4)
  loops.writeUInt32LE(20_000_000)
  const code = Buffer.from([
    ...[0xfa, 0xfc, 0x8c, 0xc8, 0x8e, 0xd8], // cli; cld; mov ax, cs; mov ds, ax
    ...[0x66, 0xb9, ...loops, 0x66, 0x49, 0x75, 0xfc], // mov ecx, loops; dec ecx; jnz back
    ...[0xbe, text & 0xff, text >> 8, 0xba, 0xf8, 0x03], // mov si, text; mov dx, COM1
    ...[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8], // lodsb; test al, al; jz out; out dx, al; jmp lodsb
    ...[0xba, 0xf4, 0x00, 0xb8, 0x10, 0x00, 0xef, 0xf4, 0xeb, 0xfd], // mov dx, 0xf4; mov ax, 16; out dx, ax; hlt
  ])
  const rom = Buffer.alloc(65_536, 0xff)
  code.copy(rom, entry)
  rom.write(`${marker}\n\0`, text, 'latin1')
  rom.writeUInt8(0xe9, 0xfff0) // near jump, which keeps the code segment at the top of memory
  rom.writeUInt16LE((entry - 0xfff3) & 0xffff, 0xfff1)
  return rom
}

function firstLine(error: unknown): string {
  const text = error instanceof CommandError ? error.stderrTail || error.message : String(error)
  return (text.split('\n')[0] ?? '').slice(0, 200)
}

async function cacheKey(hostBootId: string): Promise<string> {
  const qemu = (await runCommand(['qemu-system-x86_64', '--version'])).stdout.split('\n')[0] ?? ''
  const device = await stat('/dev/kvm').then(
    (info) => `${info.rdev}:${info.gid}:${info.mode}`,
    () => 'none',
  )
  return JSON.stringify([hostBootId, qemu, device])
}

async function readCache(file: string, key: string): Promise<Accelerator | null> {
  try {
    const cached: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof cached !== 'object' || cached === null || Reflect.get(cached, 'key') !== key) return null
    const { kind, reason } = Object(Reflect.get(cached, 'accelerator'))
    return (kind === 'kvm' || kind === 'tcg') && typeof reason === 'string' ? { kind, reason } : null
  } catch {
    return null
  }
}
