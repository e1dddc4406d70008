import { expect, test } from 'vitest'
import { expectGolden } from '../../test/golden.ts'
import { type QemuMachine, qemuArgv } from './argv.ts'

const machine: QemuMachine = {
  id: 'inst-01m857kf7c8a5rzsw9t7',
  uuid: '00000000-0000-8000-8000-000000000000',
  accelerator: 'kvm',
  vcpus: 2,
  memoryMb: 4096,
  tap: 'vt000000000001',
  mac: '06:00:00:00:00:01',
  runtimeDirectory: '/run/berth/abc123/inst-01m857kf7c8a5rzsw9t7',
  serialNumber: '',
  fds: { disk: 3, base: 4, seed: 5, serialLog: 6 },
}

/** One option with its value a line, as it would be read. */
function rendered(argv: readonly string[]): string {
  return `${argv.reduce((text, arg) => (arg.startsWith('-') ? `${text}\n${arg}` : `${text} ${arg}`))}\n`
}

test('with KVM', () => {
  expectGolden(import.meta.dirname, 'argv-kvm.txt', rendered(qemuArgv(machine)))
})

test('with emulation', () => {
  expectGolden(
    import.meta.dirname,
    'argv-tcg.txt',
    rendered(qemuArgv({ ...machine, accelerator: 'tcg', vcpus: 1, memoryMb: 256 })),
  )
})

const seedUrl = 'http://169.254.169.254/nocloud/0123456789abcdef0123456789abcdef01234567/'
const seededByNetwork: QemuMachine = {
  ...machine,
  serialNumber: `ds=nocloud;dsmode=net;s=${seedUrl}`,
  fds: { disk: 3, base: 4, seed: null, serialLog: 5 },
}

test('with its seed in the network', () => {
  expectGolden(import.meta.dirname, 'argv-network-seed.txt', rendered(qemuArgv(seededByNetwork)))
})

test('a machine without a seed disk has none, nor a descriptor for it', () => {
  const text = qemuArgv(seededByNetwork).join(' ')
  expect(text).not.toContain('drive=seed')
  expect(text).not.toContain('/dev/fdset/3')
  expect(text).toContain('fd=5,set=4 ')
})

test('a comma in the serial number does not end it', () => {
  expect(qemuArgv({ ...machine, serialNumber: 'a,uuid=b' })).toContain('type=1,serial=a,,uuid=b')
})

test('the cache of translated code grows with the memory, within bounds', () => {
  const cache = (memoryMb: number) =>
    /tb-size=(\d+)/.exec(qemuArgv({ ...machine, accelerator: 'tcg', memoryMb }).join(' '))?.[1]
  expect([64, 256, 512, 1024, 2048, 65_536].map(cache)).toEqual(['32', '32', '64', '128', '256', '256'])
})

test('it is sandboxed, gets no default device, and opens no disk by name', () => {
  const argv = qemuArgv(machine)
  const text = argv.join(' ')
  expect(argv[argv.indexOf('-sandbox') + 1]).toBe(
    'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
  )
  for (const option of ['-nodefaults', '-no-user-config', '-no-shutdown']) expect(argv).toContain(option)
  const nodes = argv.filter((_, index) => argv[index - 1] === '-blockdev').map((json) => JSON.parse(json))
  const files = nodes.filter((node) => node.driver === 'file').map((node) => node.filename)
  expect(files.sort()).toEqual(['/dev/fdset/1', '/dev/fdset/2', '/dev/fdset/3'])
  expect(text).toContain('fd=3,set=1 ')
  expect(text).toContain('logfile=/dev/fdset/4')
})

test('only the disk may be written', () => {
  const argv = qemuArgv(machine)
  const nodes = argv.filter((_, index) => argv[index - 1] === '-blockdev').map((json) => JSON.parse(json))
  const writable = nodes.filter((node) => node['read-only'] !== true).map((node) => node['node-name'])
  expect(writable.sort()).toEqual(['disk', 'disk-file'])
})
