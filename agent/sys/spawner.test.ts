import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rejection } from '../testing/rejection.ts'
import { identifyProcess, killProcess, type ProcessIdentity, waitForExit } from './process.ts'
import { CommandError, runCommand } from './run-command.ts'
import { startDetached } from './start-detached.ts'

const sh = (script: string) => ['sh', '-c', script]
const endsSoon = (process: ProcessIdentity) => waitForExit(process, 10_000)

let directory = ''
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-spawner-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

/** That of a process which should be there. */
async function identityOf(pid: number): Promise<ProcessIdentity> {
  const identity = await identifyProcess(pid)
  if (identity === null) throw new Error(`there is no process ${pid}`)
  return identity
}

async function openLog(name: string) {
  return open(join(directory, name), 'w')
}

const spawnerPid = async () => Number((await runCommand(sh('echo $PPID'))).stdout)

test('commands are started by a process that is there once, and is small', async () => {
  const [first, second] = await Promise.all([spawnerPid(), spawnerPid()])
  expect(first).toBe(second)
  expect(first).not.toBe(process.pid)
  const rssKib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${first}/status`, 'utf8'))?.[1])
  expect(rssKib).toBeLessThan(16 * 1024)
})

test('hundreds at once each get their own input, output and end', async () => {
  const ends = Array.from({ length: 300 }, async (_, index) => {
    const input = `${index}\n`.repeat(1000)
    if (index % 3 !== 0) return (await runCommand(['cat'], { input })).stdout === input
    const error = await rejection(runCommand(sh(`exit ${1 + (index % 250)}`), { input }), CommandError)
    return error.exitCode === 1 + (index % 250)
  })
  expect((await Promise.all(ends)).filter((right) => right)).toHaveLength(300)
})

test('it hands on no descriptor and no signal disposition of its own, and none that somebody left open', async () => {
  const { stdout } = await runCommand(sh('ls /proc/self/fd; grep -E "^Sig(Blk|Ign)" /proc/self/status'))
  expect(stdout).toBe('0\n1\n2\n3\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n') // 3 is that of ls
})

test('what a command has started ends with it when it is killed', async () => {
  const abort = new AbortController()
  const pids: number[] = []
  const running = runCommand(sh('sleep 600 & echo $!; wait'), {
    signal: abort.signal,
    onLine: (line) => {
      pids.push(Number(line))
      abort.abort()
    },
  })
  expect((await rejection(running, CommandError)).message).toBe('sh was cancelled')
  const child = await identifyProcess(pids[0] ?? 0)
  expect(child === null || (await endsSoon(child))).toBe(true)
})

test('one that ended while another process holds its output is waited for until its time is over', async () => {
  const running = runCommand(sh('setsid sleep 600 & echo $!'), { timeoutMs: 300 })
  const error = await rejection(running, CommandError)
  expect(error.message).toBe('sh did not finish within 300 ms')
  await killProcess(await identityOf(Number(error.stdoutTail)))
})

test('when it is lost, running commands are ended and reported as failed, and the next one starts another', async () => {
  const lost = await spawnerPid()
  const log = await openLog('lost')
  const detached = await startDetached(['sleep', '600'], { output: log.fd })
  const survivor = await identityOf(detached.pid)
  const command = Promise.withResolvers<number>()
  const running = runCommand(sh('echo $$; exec sleep 600'), { onLine: (line) => command.resolve(Number(line)) })
  const failure = rejection(running, CommandError)
  const identity = await identityOf(await command.promise)
  process.kill(lost, 'SIGKILL')
  const error = await failure
  expect(error.message).toMatch(/^sh .*the process that starts commands is gone: it ended with SIGKILL/)
  expect(error).toMatchObject({ exitCode: null, signal: null })
  expect(await endsSoon(identity)).toBe(true)
  expect(await spawnerPid()).not.toBe(lost)
  expect(await identifyProcess(survivor.pid)).toEqual(survivor)
  await killProcess(survivor)
  await log.close()
})

test('a detached process has a session of its own, its output in a file, and the files it was given', async () => {
  const log = await openLog('detached')
  const given = await open(import.meta.filename)
  const script = 'echo $$ $(cut -d " " -f 6 /proc/$$/stat); echo why >&2; head -c 6 /proc/self/fd/3; exit 3'
  const { pid, ended, end } = await startDetached(sh(script), { output: log.fd, fds: [given.fd] })
  expect(await ended).toBe('exit code 3')
  expect(end()).toBe('exit code 3')
  expect(await readFile(join(directory, 'detached'), 'utf8')).toBe(`${pid} ${pid}\nwhy\nimport`)
  await Promise.all([log.close(), given.close()])
})

test('a detached process that cannot be started is said to be so', async () => {
  const log = await openLog('none')
  await expect(startDetached(['/nowhere/at-all'], { output: log.fd })).rejects.toThrow(
    '/nowhere/at-all could not be started (No such file or directory)',
  )
  await log.close()
})

test('a file is opened anew as it was: one that is written at its end, and one without a name', async () => {
  const file = join(directory, 'appended')
  const handle = await open(file, 'a+')
  await handle.write('first\n')
  await rm(file)
  await runCommand(sh('echo second >&3'), { fds: [handle.fd] })
  expect((await handle.read(Buffer.alloc(100), 0, 100, 0)).buffer.toString('utf8', 0, 13)).toBe('first\nsecond\n')
  await handle.close()
  const error = await rejection(runCommand(['true'], { fds: [9999] }), CommandError)
  expect(error.message).toBe('true could not be started (descriptor 9999: No such file or directory)')
})

test('when its client is killed, attached commands and what they started end, and detached ones do not', async () => {
  const program = join(import.meta.dirname, '../testing/commands-until-killed.ts')
  const client = spawn(process.execPath, [program, join(directory, 'client')], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(client.stdout, 'data')) as [Buffer]
  const [shell, child, detached] = await Promise.all(
    line
      .toString()
      .trim()
      .split(' ')
      .map((pid) => identityOf(Number(pid))),
  )
  client.kill('SIGKILL')
  if (shell === undefined || child === undefined || detached === undefined) throw new Error(`three numbers: ${line}`)
  expect(await Promise.all([endsSoon(shell), endsSoon(child)])).toEqual([true, true])
  expect(await identifyProcess(detached.pid)).toEqual(detached)
  await killProcess(detached)
})
