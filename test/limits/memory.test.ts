import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Installation } from '../crash/installation.ts'
import { call } from '../crash/load.ts'
import { RawConnection } from './raw-connection.ts'

/** What each kind of hostile client may add to the memory of the server's process, MiB. */
const mostGrowthMb = 300

let installation: Installation
let port: number
const connections: RawConnection[] = []

beforeEach(async () => {
  installation = await Installation.prepare('apart')
  port = Number(new URL(installation.url).port)
  installation.server.start()
  await installation.serves()
})

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.close()
  await installation.kill(false)
  await installation.remove()
})

const requestOf = (path: string, method = 'GET', headers: readonly string[] = []) =>
  [`${method} ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...headers, '', ''].join('\r\n')

async function open(count: number): Promise<RawConnection[]> {
  const opened = Array.from({ length: count }, () => new RawConnection(port))
  connections.push(...opened)
  await Promise.all(opened.map((connection) => connection.connected))
  return opened
}

async function create(): Promise<string> {
  const answer = await call(installation.url, 'POST', '/v1/instances', { spec: { type: 'micro', image: 'micro' } })
  expect(answer?.status).toBe(201)
  return String(answer?.body.id)
}

/** Resident memory of the server's process, MiB (proc_pid_status(5)). */
function memoryMb(): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${installation.server.pid}/status`, 'utf8'))?.[1]
  return Number(kilobytes) / 1024
}

/** Let others work while the hostile clients are there; gives the growth since `before`, MiB. */
async function growthWhileOthersWork(before: number): Promise<number> {
  let most = 0
  for (let at = 0; at < 20; at++) {
    const id = await create()
    expect((await call(installation.url, 'GET', `/v1/instances/${id}`))?.status).toBe(200)
    most = Math.max(most, memoryMb() - before)
  }
  if (process.env.BERTH_TEST_LOG !== undefined) console.log(`grew by ${most.toFixed(0)} MiB`)
  return most
}

describe('memory stays bounded and others are served, while', () => {
  test('five thousand connections say nothing, or half a request', async () => {
    const before = memoryMb()
    for (const connection of await open(2500)) connection.send('GET /v1/instances HTTP/1.1\r\nX-A: ')
    await open(2500)
    expect(await growthWhileOthersWork(before)).toBeLessThan(mostGrowthMb)
  })

  test('four thousand clients wait for something that does not come', async () => {
    const id = await create()
    const before = memoryMb()
    for (const connection of await open(4000)) {
      connection.send(requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`))
    }
    expect(await growthWhileOthersWork(before)).toBeLessThan(mostGrowthMb)
  })

  test('a thousand clients send a megabyte each, but not its end', async () => {
    const before = memoryMb()
    const headers = ['Content-Type: application/json', `Content-Length: ${1024 * 1024}`]
    const almost = ' '.repeat(1024 * 1024 - 1)
    const senders = await open(1000)
    for (const connection of senders) connection.send(requestOf('/v1/instances', 'POST', headers) + almost)
    await Promise.all(senders.slice(500).map((connection) => connection.received(/^HTTP\/1\.1 503 /)))
    expect(await growthWhileOthersWork(before)).toBeLessThan(mostGrowthMb)
  })

  test('twenty clients ask fifty thousand times on one connection, to wait each time', async () => {
    const id = await create()
    const before = memoryMb()
    const greedy = await open(20)
    const requests = requestOf(`/v1/instances/${id}?wait_for=running&timeout=600`).repeat(50_000)
    for (const connection of greedy) connection.send(requests)
    expect(await Promise.all(greedy.map((connection) => connection.closed))).toEqual(greedy.map(() => ''))
    expect(await growthWhileOthersWork(before)).toBeLessThan(mostGrowthMb)
  })
})
