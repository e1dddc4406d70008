import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { mib, renderTable } from './table.ts'

// What `berth dev` takes at rest, with one simulated instance: npm run bench:rest
const restMs = 30_000
const limitBytes = 150 * 1024 ** 2

const directory = await mkdtemp(join(tmpdir(), 'berth-rest-'))
const argv = ['dev', '--hypervisor', 'simulated', '--data-dir', directory, '--listen', '127.0.0.1:0']
const berth = spawn(join(import.meta.dirname, '..', 'berth'), argv, { stdio: ['ignore', 'pipe', 'inherit'] })
try {
  const body = JSON.stringify({ spec: { type: 'micro', image: 'micro' } })
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(`${await urlOf()}/v1/instances`, { method: 'POST', headers, body })
  if (answer.status !== 201) throw new Error(`the create was answered with ${answer.status}`)
  await delay(restMs)
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${berth.pid}/status`, 'utf8')) ?? []
  const bytes = Number(kib) * 1024
  const name = 'memory of berth dev at rest, one simulated instance'
  const met = bytes <= limitBytes
  console.log(
    renderTable([{ name, measured: mib(bytes), comparedWith: '', ratio: null, limit: `≤ ${mib(limitBytes)}`, met }]),
  )
} finally {
  berth.kill()
  if (berth.exitCode === null) await once(berth, 'exit')
  await rm(directory, { recursive: true })
}

/** The URL that the banner of `berth dev` names. */
async function urlOf(): Promise<string> {
  for await (const line of createInterface({ input: berth.stdout })) {
    const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? []
    if (url !== undefined) return url
  }
  throw new Error('berth dev ended before it was ready')
}
