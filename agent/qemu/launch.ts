import { constants } from 'node:fs'
import { chown, type FileHandle, mkdir, open, readFile, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { diskFiles, exists } from '../disk/disks.ts'
import { HostError } from '../host-driver.ts'
import { inNamespace } from '../network/namespace.ts'
import { identifyProcess, killProcess } from '../sys/process.ts'
import { type DetachedProcess, startDetached } from '../sys/start-detached.ts'
import { untilAborted } from '../sys/until-aborted.ts'
import { kvmGroup } from './accelerator.ts'
import { type QemuMachine, qemuArgv, runtimePaths } from './argv.ts'
import { makeSpool, unmount } from './serial-spool.ts'
import { QemuVmm } from './vmm.ts'

/** Time QEMU gets to answer once its socket is there, milliseconds; the deadline of the step is shorter, usually. */
const answerMs = 600_000

export interface Launch {
  machine: Omit<QemuMachine, 'fds'>
  namespace: string
  uid: number
  /** Directory of disk, seed and logs. */
  instanceDirectory: string
  /** Whether it has a seed there. */
  seedDisk: boolean
  /** Position of the first byte that it will write to its serial line, in bytes since the instance was created. */
  serialStart: number
}

/**
 * Start QEMU for an instance: in its namespace, as its own uid, without privileges, in a session of its own so that it
 * outlives the agent. Its files are opened here, and it gets them as descriptors. Resolves when its CPUs run. When that
 * fails, or has not come when the signal is aborted, nothing of it is left alive and the end of qemu.log is in the error.
 */
export async function launchQemu(launch: Launch, signal: AbortSignal): Promise<QemuVmm> {
  const files = diskFiles(launch.instanceDirectory)
  const paths = runtimePaths(launch.machine.runtimeDirectory)
  await prepareRuntimeDirectory(launch)
  const opened: FileHandle[] = []
  const openFile = async (path: string, flags: number) => {
    const file = await open(path, flags, 0o600)
    opened.push(file)
    return file.fd
  }
  try {
    const log = await openFile(files.qemuLog, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC)
    const inherited = [
      await openFile(files.disk, constants.O_RDWR),
      await openFile(files.base, constants.O_RDONLY),
      await openSpool(launch, opened),
      ...(launch.seedDisk ? [await openFile(files.seed, constants.O_RDONLY)] : []),
    ]
    // the child sees them as 3, 4, 5, 6: their places in stdio
    const fds = { disk: 3, base: 4, serialLog: 5, seed: launch.seedDisk ? 6 : null }
    const argv = qemuArgv({ ...launch.machine, fds })
    const command = [...inNamespace(launch.namespace), ...(await asUser(launch)), ...argv]
    signal.throwIfAborted() // the last moment at which there is nothing to end
    const started = await startDetached(command, { output: log, fds: inherited })
    return await attachWhenUp(started, paths.qmp, launch.machine.uuid, signal)
  } catch (error) {
    throw await launchError(error, files.qemuLog)
  } finally {
    await Promise.all(opened.map((file) => file.close()))
  }
}

async function prepareRuntimeDirectory(launch: Launch): Promise<void> {
  const { runtimeDirectory } = launch.machine
  await removeRuntimeDirectory(runtimeDirectory) // sockets of an earlier run
  await mkdir(runtimeDirectory, { recursive: true, mode: 0o700 })
  await chown(runtimeDirectory, launch.uid, launch.uid)
}

/** Remove the sockets of a VMM, with the mount point that an agent left that was killed while it made a spool. */
export async function removeRuntimeDirectory(directory: string): Promise<void> {
  const remove = () => rm(directory, { recursive: true, force: true })
  try {
    await remove()
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'EBUSY') throw error
    await unmount(runtimePaths(directory).spool)
    await remove()
  }
}

async function openSpool({ machine, serialStart }: Launch, opened: FileHandle[]): Promise<number> {
  const spool = await makeSpool(machine.id, serialStart, runtimePaths(machine.runtimeDirectory).spool)
  opened.push(spool)
  return spool.fd
}

/** argv that becomes the VM's user; with KVM it also has the group that may open the device. */
async function asUser(launch: Launch): Promise<string[]> {
  const group = launch.machine.accelerator === 'kvm' ? await kvmGroup() : null
  const groups = group === null ? '--clear-groups' : `--groups=${group}`
  return ['setpriv', `--reuid=${launch.uid}`, `--regid=${launch.uid}`, groups, '--no-new-privs', '--']
}

async function attachWhenUp(
  { pid, end }: DetachedProcess,
  qmpPath: string,
  uuid: string,
  signal: AbortSignal,
): Promise<QemuVmm> {
  const identity = await identifyProcess(pid)
  if (identity === null) throw new Error(`QEMU ended at its start${end() === null ? '' : ` with ${end()}`}`)
  try {
    for (;;) {
      const how = end()
      if (how !== null) throw new Error(`QEMU ended at its start with ${how}`)
      if (await exists(qmpPath)) {
        try {
          return await untilAborted(QemuVmm.attach(identity, qmpPath, uuid, answerMs), signal)
        } catch (error) {
          if (signal.aborted) throw new Error('QEMU runs but does not answer on its QMP socket')
          const early = error instanceof Error && Reflect.get(error, 'code') === 'ECONNREFUSED' // bound, not listening
          if (!early) {
            await delay(100) // when the process has ended, how it did says more than its broken connection
            throw end() === null ? error : new Error(`QEMU ended at its start with ${end()}`)
          }
        }
      }
      if (signal.aborted) throw new Error('QEMU has not opened its QMP socket')
      await delay(5)
    }
  } catch (error) {
    await killProcess(identity)
    throw error
  }
}

async function launchError(error: unknown, logFile: string): Promise<HostError> {
  const why = error instanceof Error ? error.message : String(error)
  const log = (await readFile(logFile, 'utf8').catch(() => '')).trim().slice(-1500)
  const message = log === '' ? why : `${why}: ${log}`
  return new HostError('vmm_start_failed', message, { cause: error, retryable: true, tryAgain: true })
}
