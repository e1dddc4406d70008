import { type ChildProcess, spawn } from 'node:child_process'
import { appendFile, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SerialLog } from '@berth/agent/qemu/serial-log.ts'
import { makeSpool, SerialSpool, spoolBytes } from '@berth/agent/qemu/serial-spool.ts'
import { identifyProcess, type ProcessIdentity, waitForExit } from '@berth/agent/sys/process.ts'
import { afterEach, beforeEach, expect, test } from 'vitest'

// a shell with the spool as its descriptor 3 stands for a VMM

const id = 'inst-00000000000000000001'
let directory: string
let children: ChildProcess[]

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-spool-'))
  children = []
})

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  await rm(directory, { recursive: true, force: true })
  expect(await readFile('/proc/mounts', 'utf8')).not.toContain('berth-serial')
})

async function startVmm(script: string, base: number): Promise<ProcessIdentity> {
  const file = await makeSpool(id, base, join(directory, 'mount'))
  return startWriter(script, file)
}

async function startWriter(script: string, file: { fd: number; close: () => Promise<void> }): Promise<ProcessIdentity> {
  const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore', file.fd] })
  children.push(child)
  await file.close()
  const identity = child.pid === undefined ? null : await identifyProcess(child.pid)
  if (identity === null) throw new Error('the shell did not start')
  return identity
}

/** A line on the standard input of the shell that was started last. */
function tell(line: string): void {
  children.at(-1)?.stdin?.write(`${line}\n`)
}

function newLog(writer: ProcessIdentity | null = null): SerialLog {
  return new SerialLog(directory, join(directory, 'serial.log'), async () => writer)
}

async function spoolOf(vmm: ProcessIdentity): Promise<SerialSpool> {
  const spool = await SerialSpool.of(vmm, id)
  if (spool === null) throw new Error('the VMM has no spool')
  return spool
}

async function isFull(vmm: ProcessIdentity): Promise<boolean> {
  const spool = await spoolOf(vmm)
  try {
    return await spool.isFull()
  } finally {
    await spool.close({ remove: false })
  }
}

async function whole(log: SerialLog): Promise<string> {
  for (let before = -1, end = await log.collect(0); end !== before; end = await log.collect(0)) before = end
  const pieces: Buffer[] = []
  for (let position = 0; ; ) {
    const { offset, data } = await log.read(position, 64 * 1024)
    if (data.length === 0) return Buffer.concat(pieces).toString()
    pieces.push(data)
    position = offset + data.length
  }
}

test('a VMM that writes without end with no agent fills its spool and no more; the next agent says so and goes on', async () => {
  const vmm = await startVmm('echo first >&3; yes >&3 2>/dev/null; read word; echo "$word" >&3; read end', 0)
  await expect.poll(() => isFull(vmm), { timeout: 20_000 }).toBe(true)
  const log = newLog()
  await log.adopt(await spoolOf(vmm))
  const kept = await whole(log)
  expect(kept.startsWith('first\ny\ny\n')).toBe(true)
  expect(kept.length).toBeLessThan(spoolBytes + 100)
  expect(kept.endsWith('\r\n[berth: output is missing here: no agent was there to take it]\r\n')).toBe(true)
  tell('again')
  await expect.poll(() => whole(log), { timeout: 10_000 }).toMatch(/take it\]\r\nagain\n$/)
  await log.close()
})

test('output of a time without an agent is there when the next one comes, each byte once', async () => {
  const vmm = await startVmm('echo one >&3; while read word; do echo "$word" >&3; done', 0)
  const first = newLog()
  await first.attach(await spoolOf(vmm))
  await expect.poll(() => whole(first)).toBe('one\n')
  await first.close()
  tell('two')
  const second = newLog()
  await second.adopt(await spoolOf(vmm))
  await expect.poll(() => whole(second)).toBe('one\ntwo\n')
  // killed after it took over and before it closed anything
  tell('three')
  await expect.poll(() => whole(second)).toBe('one\ntwo\nthree\n')
  const third = newLog()
  await third.adopt(await spoolOf(vmm))
  tell('four')
  await expect.poll(() => whole(third)).toBe('one\ntwo\nthree\nfour\n')
  await second.close()
  await third.close()
})

test('a flood is followed to its end, and the memory of what was taken over is given back', async () => {
  const million = Array.from({ length: 8 }, () => 'seq 1000000 1099999 >&3; read next').join('; ')
  const vmm = await startVmm(`${million}; read end`, 0)
  const log = newLog()
  await log.attach(await spoolOf(vmm))
  for (let round = 1; round <= 8; round++) {
    await expect.poll(() => log.collect(0), { timeout: 20_000 }).toBe(round * 800_000)
    tell('')
  }
  expect((await log.read(6_400_000 - 8, 100)).data.toString()).toBe('1099999\n')
  expect(await isFull(vmm)).toBe(false)
  await log.close()
})

test('the last words of a VMM that was killed are taken from the spool that it left', async () => {
  const vmm = await startVmm('read word; echo BUG >&3; kill -9 $$', 0)
  const log = newLog()
  await log.attach(await spoolOf(vmm))
  tell('')
  await waitForExit(vmm, 5000)
  expect(await log.beginRun()).toBe(4)
  expect(await whole(log)).toBe('BUG\n')
  const next = await startVmm('echo next >&3; read end', 4)
  await log.attach(await spoolOf(next))
  await expect.poll(() => whole(log)).toBe('BUG\nnext\n')
  await log.close()
})

test('where the host restarted, or the server has more than the host, the log goes on behind that and says so', async () => {
  const vmm = await startVmm('echo old >&3; read end', 0)
  const log = newLog()
  await log.attach(await spoolOf(vmm))
  await expect.poll(() => whole(log)).toBe('old\n')
  tell('end')
  await waitForExit(vmm, 5000)
  await log.hostRestarted()
  const base = await log.beginRun()
  expect(base).toBeGreaterThan(2 ** 30)
  const next = await startVmm('echo new >&3; while read word; do echo "$word" >&3; done', base)
  await log.attach(await spoolOf(next))
  await expect.poll(() => whole(log)).toMatch(/^old\n\r\n\[berth: the host restarted here; .*\]\r\nnew\n$/)
  await log.skipTo(base + 100_000)
  tell('later')
  await expect.poll(() => whole(log)).toMatch(/new\n\r\n\[berth: .* the host has lost it\]\r\nlater\n$/)
  expect((await log.read(base + 50_000, 100)).offset).toBe(base + 100_000)
  await log.close()
})

test('a log that an earlier version has its VMM write is followed from where its first byte stood', async () => {
  const path = join(directory, 'serial.log')
  await writeFile(path, 'kept of before\n')
  const vmm = await startWriter('echo now >&3; while read word; do echo "$word" >&3; done', await open(path, 'a'))
  const log = newLog(vmm)
  const text = async () => {
    const end = await log.collect(1000)
    return { end, text: (await log.read(0, 1000)).data.toString() }
  }
  await expect.poll(text).toEqual({ end: 1019, text: 'kept of before\nnow\n' })
  tell('more')
  await expect.poll(text).toEqual({ end: 1024, text: 'kept of before\nnow\nmore\n' })
  await log.close()
  const next = newLog(vmm)
  tell('last')
  await expect.poll(async () => next.collect(1000)).toBe(1029)
  children.at(-1)?.kill('SIGKILL')
  await waitForExit(vmm, 5000)
  await appendFile(path, 'words\n')
  expect(await next.beginRun()).toBe(1035)
  expect((await readdir(directory)).filter((name) => name === 'serial.log')).toEqual([])
  await next.close()
})
