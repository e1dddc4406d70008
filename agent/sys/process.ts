import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** A process, told from a later one with the same pid by its start time (clock ticks since boot, proc(5)). */
export interface ProcessIdentity {
  pid: number
  startTime: string
}

/** The process under a pid, or null when there is none or it is a zombie. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | null> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from field 3 on; the name may hold anything
    const [state] = fields
    const startTime = fields[19]
    return state === 'Z' || startTime === undefined ? null : { pid, startTime }
  } catch {
    return null
  }
}

/** Clock ticks a second of times in /proc (USER_HZ, which Linux fixes at 100 for user space). */
const ticksPerSecond = 100

/** Processor time a process used, milliseconds, and memory it holds, bytes (proc(5)). Throws when it is gone. */
export async function readProcessUsage({ pid }: ProcessIdentity): Promise<{ cpuMs: number; memoryBytes: number }> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12]) // utime, stime
  const kib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
  return { cpuMs: Math.round((ticks * 1000) / ticksPerSecond), memoryBytes: kib * 1024 }
}

export async function isAlive(process: ProcessIdentity): Promise<boolean> {
  return (await identifyProcess(process.pid))?.startTime === process.startTime
}

/** Every process whose command line holds all of these arguments, one after the other. */
export async function listProcesses(args: readonly string[]): Promise<ProcessIdentity[]> {
  const wanted = `\0${args.join('\0')}\0`
  const found: ProcessIdentity[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || !(await matches(entry, wanted))) continue
    const identity = await identifyProcess(Number(entry))
    if (identity !== null) found.push(identity)
  }
  return found
}

async function matches(pid: string, wanted: string): Promise<boolean> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(wanted)
  } catch {
    return false // it ended meanwhile
  }
}

/** Wait until a process is gone, at most so long; false when it is still there. */
export async function waitForExit(process: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (await isAlive(process)) {
    if (performance.now() > deadline) return false
    await delay(10)
  }
  return true
}

/** Send a signal to exactly this process; one that is gone gets none. */
export async function signalProcess(target: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(target))) return
  try {
    process.kill(target.pid, signal)
  } catch (error) {
    if (!(error instanceof Error) || Reflect.get(error, 'code') !== 'ESRCH') throw error
  }
}

/** Send SIGKILL to exactly this process and wait until it is gone. Throws when it stays (uninterruptible sleep). */
export async function killProcess(target: ProcessIdentity): Promise<void> {
  await signalProcess(target, 'SIGKILL')
  if (!(await waitForExit(target, 10_000))) throw new Error(`process ${target.pid} does not end after SIGKILL`)
}
