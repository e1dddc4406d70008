import { netdevArgument, tapMtu } from '../network/names.ts'

/** Everything QEMU's command line depends on. */
export interface QemuMachine {
  id: string
  uuid: string
  accelerator: 'kvm' | 'tcg'
  vcpus: number
  memoryMb: number
  tap: string
  mac: string
  /** Directory of the sockets and the pid file. */
  runtimeDirectory: string
  /** Serial number of the machine (SMBIOS, System Information), by which a guest finds a seed in the network; "" for none. */
  serialNumber: string
  /** File descriptors the process inherits; `seed` is null for a machine that has no seed disk. */
  fds: { disk: number; base: number; seed: number | null; serialLog: number }
}

/** Sets that the descriptors become in QEMU; `/dev/fdset/N` names one. */
const fdSets = { disk: 1, base: 2, seed: 3, serialLog: 4 } as const

/** Sandbox of the VMM: no new privileges, no other programs, no resource control (qemu(1), -sandbox). */
export const sandboxArgs = [
  '-sandbox',
  'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
] as const

/** Path of a socket or file of a running VMM. */
export const runtimePaths = (directory: string) => ({
  qmp: `${directory}/qmp.sock`,
  serial: `${directory}/serial.sock`,
  pidFile: `${directory}/qemu.pid`,
  /** Mount point of the serial spool, for a moment of the start. */
  spool: `${directory}/spool`,
})

/**
 * QEMU's argv for an instance. Disk, seed and serial log come as descriptors, so the process needs no access to the
 * data directory; by name it opens only its tap and its sockets. Ids, taps and MACs have narrow patterns, block devices
 * are given as JSON, and of other values the commas are doubled. Pure.
 */
export function qemuArgv(machine: QemuMachine): string[] {
  const paths = runtimePaths(machine.runtimeDirectory)
  const { fds } = machine
  return [
    'qemu-system-x86_64',
    ...['-name', `guest=${machine.id},debug-threads=on`],
    ...['-uuid', machine.uuid],
    ...['-machine', 'q35,usb=off,vmport=off'],
    ...(machine.accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', `tcg,thread=multi,tb-size=${translationCacheMb(machine.memoryMb)}`, '-cpu', 'max']),
    ...['-smp', `cpus=${machine.vcpus}`],
    ...['-m', `size=${machine.memoryMb}M`],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-no-shutdown'], // a guest that powers off leaves the process, so it can be told from a crash
    ...['-action', 'panic=pause'], // so does one whose kernel panics
    // a machine asleep in S3 is of no use in a cloud, and one in S4 is off without having said so
    ...['-global', 'ICH9-LPC.disable_s3=1', '-global', 'ICH9-LPC.disable_s4=1'],
    ...['-pidfile', paths.pidFile],
    ...sandboxArgs,
    ...(machine.serialNumber === '' ? [] : ['-smbios', `type=1,serial=${optionValue(machine.serialNumber)}`]),
    ...Object.entries(fdSets).flatMap(([name, set]) => {
      const fd = fds[name as keyof typeof fds]
      return fd === null ? [] : ['-add-fd', `fd=${fd},set=${set}`]
    }),
    ...blockdev({ driver: 'file', 'node-name': 'base-file', filename: fdSetPath('base'), 'read-only': true }),
    ...blockdev({ driver: 'qcow2', 'node-name': 'base', file: 'base-file', 'read-only': true }),
    ...blockdev({ driver: 'file', 'node-name': 'disk-file', filename: fdSetPath('disk'), discard: 'unmap' }),
    ...blockdev({ driver: 'qcow2', 'node-name': 'disk', file: 'disk-file', backing: 'base', discard: 'unmap' }),
    ...['-device', 'virtio-blk-pci,drive=disk,bootindex=0'],
    ...(fds.seed === null ? [] : seedDisk()),
    ...['-netdev', netdevArgument(machine.tap)],
    ...['-device', `virtio-net-pci,netdev=nic0,mac=${machine.mac},host_mtu=${tapMtu},romfile=`],
    ...['-device', 'virtio-rng-pci'],
    ...['-device', 'pvpanic-pci,bus=pcie.0,addr=0x9'], // a slot of its own: the others keep theirs
    '-chardev',
    `socket,id=serial0,path=${paths.serial},server=on,wait=off,logfile=${fdSetPath('serialLog')},logappend=on`,
    ...['-serial', 'chardev:serial0'],
    ...['-chardev', `socket,id=qmp0,path=${paths.qmp},server=on,wait=off`],
    ...['-mon', 'chardev=qmp0,mode=control'],
  ]
}

function blockdev(node: Record<string, unknown>): string[] {
  return ['-blockdev', JSON.stringify(node)]
}

function seedDisk(): string[] {
  return [
    ...blockdev({ driver: 'file', 'node-name': 'seed-file', filename: fdSetPath('seed'), 'read-only': true }),
    ...blockdev({ driver: 'raw', 'node-name': 'seed', file: 'seed-file', 'read-only': true }),
    ...['-device', 'virtio-blk-pci,drive=seed'],
  ]
}

/** A value within an option of QEMU's, whose commas would end it (qemu(1), Device URL Syntax and -smbios). */
function optionValue(text: string): string {
  return text.replaceAll(',', ',,')
}

function fdSetPath(name: keyof typeof fdSets): string {
  return `/dev/fdset/${fdSets[name]}`
}

/** TCG's cache of translated code, MiB: its default of up to 1 GiB would dwarf a small guest. */
function translationCacheMb(memoryMb: number): number {
  return Math.min(256, Math.max(32, Math.floor(memoryMb / 8)))
}
