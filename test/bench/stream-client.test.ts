import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { StreamClient } from '../../bench/api/stream-client.ts'

let server: Server | undefined

afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

/** A client of a stream that shows events with these numbers and goes on. */
async function clientOf(sequences: readonly number[]): Promise<StreamClient> {
  server = createServer((_request, response) => {
    response.write(': connected\n\n')
    for (const sequence of sequences) response.write(`event: change\nid: ${sequence}\ndata: {}\n\n`)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = await StreamClient.open(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  await client.has(sequences.at(-1) ?? 0)
  return client
}

test('a stream that showed others before the first and behind the last has them all', async () => {
  const client = await clientOf([4, 5, 6, 7, 8])
  expect(client.hasAll(5, 7)).toBe(true)
  client.close()
})

test.each([
  { what: 'begins too late', sequences: [6, 7] },
  { what: 'has a gap', sequences: [5, 7] },
  { what: 'is out of order', sequences: [6, 5, 7] },
  { what: 'shows one twice', sequences: [5, 6, 6, 7] },
])('a stream that $what does not have them all', async ({ sequences }) => {
  const client = await clientOf(sequences)
  expect(client.hasAll(5, 7)).toBe(false)
  client.close()
})

test('a stream that has not come to the last does not have them all', async () => {
  const client = await clientOf([5, 6])
  expect(client.hasAll(5, 7)).toBe(false)
  client.close()
})
