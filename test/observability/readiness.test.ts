import type { Problem } from '@berth/contract/problem.ts'
import SqliteDatabase from 'better-sqlite3'
import { expect, test } from 'vitest'
import { startStack, testPublicKey, until } from '../stack.ts'

test('a server whose database takes no writes is alive and says what is not ready, and is ready again by itself', async () => {
  await using stack = await startStack({ agent: false })
  expect(await stack.api('GET', '/readyz')).toMatchObject({ status: 200, body: { status: 'ok' } })
  const database = new SqliteDatabase(stack.databaseFile)
  database.exec(`create trigger refuse before update on kysely_migration_lock
    begin select raise(abort, 'no writes today'); end`)
  const unready = await until(
    () => stack.api<Problem>('GET', '/readyz'),
    ({ status }) => status === 503,
  )
  expect(unready.headers).toMatchObject({ 'content-type': 'application/problem+json', 'retry-after': '1' })
  expect(unready.body).toMatchObject({
    code: 'unavailable',
    status: 503,
    detail: 'Not ready: database_write (the database cannot be written).',
  })
  expect((await stack.api('GET', '/healthz')).status).toBe(200)
  expect((await stack.api('GET', '/v1/instances')).status).toBe(200)
  database.exec('drop trigger refuse')
  database.close()
  expect(await stack.api('GET', '/readyz')).toMatchObject({ status: 200, body: { status: 'ok' } })
})

test('the example of the contract works with the first request that a server of examples answers', async () => {
  await using stack = await startStack({ agent: false, examplePublicKey: testPublicKey })
  const spec = { vpc_id: 'vpc-abc123', subnet_id: 'subnet-def456', security_groups: ['sg-web', 'sg-ssh'] }
  const { status } = await stack.api('POST', '/v1/instances', {
    metadata: { name: 'web-server-01' },
    spec: { type: 'cx31', image: 'ubuntu-22.04', ssh_key_ids: ['key-001'], ...spec },
  })
  expect(status).toBe(201)
})

test('a server that stops says that it is not ready and goes on serving for the time it is given', async () => {
  await using stack = await startStack({ agent: false, settings: { drainMs: 1500 } })
  const { id } = await stack.create()
  expect((await stack.api('GET', '/readyz')).status).toBe(200)
  const stopped = stack.stopServer()
  const unready = await stack.api('GET', '/readyz')
  expect(unready.status).toBe(503)
  expect(unready.body).toMatchObject({ detail: 'Not ready: process (the server is stopping).' })
  expect((await stack.api('GET', '/healthz')).status).toBe(200)
  expect((await stack.get(id)).id).toBe(id)
  await stopped
  await expect(stack.api('GET', '/readyz')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})
