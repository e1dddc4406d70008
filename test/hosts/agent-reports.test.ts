import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { startAgent } from '@berth/agent/main.ts'
import { SimulatedHost } from '@berth/agent/simulated/host.ts'
import type { ConsoleChunk, Observed } from '@berth/contract/hosts/agent-protocol.ts'
import { pino } from 'pino'
import { afterEach, expect, test } from 'vitest'
import { type Stack, startStack, until } from '../stack.ts'

const ends: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** Passes everything on to a server, and keeps the reports and the serial output that went through. */
async function startWire(stack: Stack) {
  const reports: Observed[] = []
  const chunks: ConsoleChunk[] = []
  let cuts = 0
  const wire = createServer(async (incoming, outgoing) => {
    const body = await buffer(incoming)
    const isReport = incoming.url === '/v1/agent/observed'
    if (isReport) reports.push(JSON.parse(body.toString()))
    if (incoming.url === '/v1/agent/console-logs') chunks.push(...JSON.parse(body.toString()).chunks)
    const { host: _, ...headers } = incoming.headers
    const passed = request(`${stack.url}${incoming.url}`, { method: incoming.method ?? 'GET', headers }, (answer) => {
      if (isReport && cuts-- > 0) {
        answer.resume()
        outgoing.destroy() // the server has it, the agent does not hear of that
        return
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    passed.on('error', () => outgoing.destroy())
    passed.end(body)
  })
  await new Promise<void>((resolve) => wire.listen(0, '127.0.0.1', resolve))
  ends.push(async () => {
    wire.closeAllConnections()
    wire.close()
  })
  return {
    url: `http://127.0.0.1:${(wire.address() as AddressInfo).port}`,
    reports,
    chunks,
    /** The answer to the next report is lost. */
    cutNext: () => {
      cuts = 1
    },
  }
}

async function startAgentOnWire() {
  const stack = await startStack({ agent: false })
  ends.push(() => stack.close())
  const wire = await startWire(stack)
  const host = new SimulatedHost()
  const directory = mkdtempSync(join(tmpdir(), 'berth-test-'))
  const config = { ledgerFile: join(directory, 'ledger.db'), serverUrl: wire.url, credential: stack.credential }
  const start = () => startAgent(config, host, pino({ level: 'silent' }))
  let agent = start()
  const restartAgent = async () => {
    await agent.stop()
    agent = start()
  }
  ends.push(async () => {
    await agent.stop()
    rmSync(directory, { recursive: true, force: true })
  })
  const createReady = async () => (await stack.createReady()).id
  return { stack, wire, host, createReady, restartAgent }
}

const named = (report: Observed | undefined) => report?.instances.map((instance) => instance.id).sort()

test('a report names only the instances that changed since the one before', async () => {
  const { wire, createReady } = await startAgentOnWire()
  const first = await createReady()
  const second = await createReady()
  const brought = wire.reports.map(named).findLast((ids) => ids?.includes(second))
  expect(brought).toEqual([second])
  expect(wire.reports.flatMap(named)).toContain(first)
})

test('after a report whose answer was lost the next one names every instance', async () => {
  const { stack, wire, createReady } = await startAgentOnWire()
  const ids = [await createReady(), await createReady()].sort()
  wire.cutNext()
  const third = await createReady()
  const all = [...ids, third].sort()
  const whole = await until(
    () => wire.reports.map(named).find((report) => report?.length === all.length),
    (found) => found !== undefined,
  )
  expect(whole).toEqual(all)
  expect((await stack.get(third)).status.state).toBe('running')
})

test('when more instances change at once than one report takes, all of them are told in several', async () => {
  const { stack, wire, host } = await startAgentOnWire()
  const letStart = host.hold('start')
  const ids = await Promise.all(Array.from({ length: 120 }, async () => (await stack.create()).id))
  await until(
    () => new Set(wire.reports.flatMap(named)).size,
    (reported) => reported === ids.length,
  )
  const before = wire.reports.length
  letStart()
  await until(
    async () => (await stack.list()).filter((instance) => instance.status.state === 'running').length,
    (running) => running === ids.length,
  )
  const changed = wire.reports.slice(before)
  expect(Math.max(...changed.map((report) => report.instances.length))).toBe(50)
  expect(new Set(changed.flatMap(named))).toEqual(new Set(ids))
})

test('serial output of a new instance goes out unasked, and an agent that restarts doubles none of it', async () => {
  const { stack, wire, createReady, restartAgent } = await startAgentOnWire()
  const id = await createReady()
  const text = async () => (await stack.api('GET', `/v1/instances/${id}/console-log`)).text
  const before = await until(text, (current) => current.includes('BERTH-READY'))
  expect(Buffer.from(wire.chunks[0]?.data ?? '', 'base64').toString()).toMatch(/^Linux version/)
  const sent = wire.chunks.length
  await restartAgent()
  await until(
    () => wire.chunks.length,
    (count) => count > sent,
  )
  await createReady()
  expect(await text()).toBe(before)
})
