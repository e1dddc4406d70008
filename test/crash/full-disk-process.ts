// Runs one scenario of a disk that fills up, in a mount namespace of its own, and writes what it saw as a line of JSON.
// Argument: name of the scenario. What should not be ends it with an error.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { FaultPoint } from '@berth/agent/simulated/host.ts'
import { startStack } from '../stack.ts'
import { databaseFaults, openOperations } from './database-checks.ts'
import { Installation } from './installation.ts'
import { call } from './load.ts'
import { SmallDisk } from './small-disk.ts'

const body = {
  spec: { type: 'micro', image: 'micro', user_data: Buffer.from(`#!${'x'.repeat(3000)}`).toString('base64') },
}

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f'

/** Server, agent and log on one disk: what is refused says why, reads go on, nothing acknowledged is lost. */
async function everything(disk: SmallDisk) {
  const errorFile = join(disk.path, 'log')
  const installation = await Installation.prepare('dev', { data: disk.directory('data'), logLevel: 'debug', errorFile })
  const { url } = installation
  const acknowledged: string[] = []
  const answers: { [status: string]: number } = {}
  let growth = 0
  const create = async () => {
    const answer = await call(url, 'POST', '/v1/instances', body)
    const { id, code } = answer?.body ?? {}
    answers[`${answer?.status} ${code ?? ''}`.trim()] = (answers[`${answer?.status} ${code ?? ''}`.trim()] ?? 0) + 1
    if (answer?.status === 201 && id !== undefined) acknowledged.push(id)
    return answer?.status
  }
  installation.start()
  await installation.serves()
  try {
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < 5; at++) await create()
      const creating = Array.from({ length: 30 }, create) // some of them meet the full disk half-way
      disk.fill()
      await Promise.all(creating)
      // commits still fit into the WAL that SQLite has already; in the end none does
      const refused = () => answers['507 storage_full'] ?? 0
      const before507 = refused()
      for (let batch = 0; batch < 40 && refused() === before507; batch++) {
        disk.fill()
        await Promise.all(Array.from({ length: 10 }, create))
      }
      assert.ok(refused() > before507, JSON.stringify(answers))
      const list = await call(url, 'GET', '/v1/instances')
      assert.equal(list?.status, 200)
      for (const id of acknowledged) assert.equal((await call(url, 'GET', `/v1/instances/${id}`))?.status, 200)
      const before = cpuTicks(installation.server.pid)
      await delay(3000)
      growth = Math.max(growth, cpuTicks(installation.server.pid) - before)
      assert.ok(installation.server.running)

      disk.makeRoom()
      assert.equal(await lastly(create, 201), 201)
      await allRun(url, acknowledged)
    }
    const states = await allRun(url, acknowledged)
    // where it cannot start on the full disk it says so, and starts as soon as there is room
    await installation.kill(true)
    disk.fill()
    installation.start()
    const served = await installation.serves().then(
      () => true,
      () => false,
    )
    disk.makeRoom()
    if (!served) {
      assert.match(readFileSync(errorFile, 'utf8'), /full/)
      installation.start()
      await installation.serves()
    }
    await allRun(url, acknowledged)
    assert.deepEqual(openOperations(installation.databaseFile), [])
    await installation.stop()
    assert.deepEqual(databaseFaults(installation.databaseFile, []), [])
    assert.ok(existsSync(errorFile))
    return { answers, acknowledged: acknowledged.length, states, cpuTicksIn3s: growth }
  } finally {
    await installation.kill(true)
  }
}

/** The disk is full to its last byte, and stays so: what makes room goes on, and ends; nothing else does. */
async function deletes(disk: SmallDisk) {
  const errorFile = join(disk.path, 'log')
  const installation = await Installation.prepare('dev', { data: disk.directory('data'), logLevel: 'debug', errorFile })
  const { url } = installation
  installation.start()
  await installation.serves()
  try {
    const ids: string[] = []
    for (let at = 0; at < 12; at++) ids.push(String((await call(url, 'POST', '/v1/instances', body))?.body.id))
    await allRun(url, ids)
    const key = await call(url, 'POST', '/v1/ssh-keys', { spec: { public_key: publicKey } })
    assert.equal(key?.status, 201)
    disk.fill()
    let refusal = await call(url, 'POST', '/v1/instances', body)
    for (let at = 0; at < 2000 && refusal?.status !== 507; at++) {
      disk.fill()
      refusal = await call(url, 'POST', '/v1/instances', body)
      if (refusal?.status === 201) ids.push(String(refusal.body.id))
    }
    assert.equal(refusal?.status, 507)
    const [stopped = '', ...others] = ids
    const operations: string[] = []
    const act = async (method: string, path: string) => {
      disk.fill() // as guests do that write
      const answer = await call(url, method, path)
      assert.equal(answer?.status, 202, `${method} ${path}: ${JSON.stringify(answer)}`)
      operations.push(String(answer?.body.operation_id))
    }
    await act('POST', `/v1/instances/${stopped}/stop`)
    for (const id of others) await act('DELETE', `/v1/instances/${id}`)
    const ends: { [status: string]: number } = {}
    for (const id of operations) {
      const operation = await call(url, 'GET', `/v1/operations/${id}?wait=30`)
      const status = String(Reflect.get(Object(operation?.body), 'status'))
      ends[status] = (ends[status] ?? 0) + 1
    }
    assert.equal((await fetch(`${url}/v1/ssh-keys/${key?.body.id}`, { method: 'DELETE' })).status, 204)
    const states = await statesOf(url, [stopped, ...others])
    disk.fill()
    const again = await call(url, 'POST', '/v1/instances', body)
    const start = await call(url, 'POST', `/v1/instances/${stopped}/start`)
    disk.makeRoom()
    const later = await lastly(async () => (await call(url, 'POST', '/v1/instances', body))?.status, 201)
    await installation.stop()
    assert.deepEqual(databaseFaults(installation.databaseFile, []), [])
    const seen = { again: again?.status, start: start?.status, later }
    return { instances: ids.length, detail: String(Reflect.get(Object(again?.body), 'detail')), ends, states, ...seen }
  } finally {
    await installation.kill(true)
  }
}

/** Only the agent's ledger is on the full disk, in the middle of many starts. */
async function ledger(disk: SmallDisk) {
  const installation = await Installation.prepare('apart', { ledgerDirectory: disk.path })
  const { url } = installation
  const ids: string[] = []
  installation.start()
  await installation.serves()
  try {
    for (let at = 0; at < 40; at++) {
      if (at === 20) disk.fill()
      const answer = await call(url, 'POST', '/v1/instances', body)
      assert.equal(answer?.status, 201) // the server has room
      ids.push(String(answer?.body.id))
    }
    await delay(3000)
    assert.equal(installation.agent?.running, true)
    const waiting = await statesOf(url, ids)
    disk.makeRoom()
    const states = await allRun(url, ids)
    assert.deepEqual(openOperations(installation.databaseFile), [])
    await installation.stop()
    await installation.remove()
    return { waiting, states }
  } finally {
    await installation.kill(true)
  }
}

/** The disk fills up while an instance is at one step of its start; all else waits for the test. */
async function step(disk: SmallDisk, point: FaultPoint) {
  process.env.TMPDIR = disk.path // where the stack has its directory
  const stack = await startStack()
  try {
    const release = stack.hold(point)
    const { id, operation_id: operationId } = await stack.create()
    await stack.stepRuns(operationId, point === 'start' ? 'boot' : point)
    disk.fill()
    release()
    await delay(1000)
    const state = (await stack.get(id)).status.state
    disk.makeRoom()
    const ready = await stack.reach(id, 'ready', 30)
    const operation = await stack.ended(operationId)
    await stack.ended(await stack.delete(id))
    assert.deepEqual(stack.host.leftovers(), [])
    return { whenFull: state, state: ready.status.state, operation: operation.status }
  } finally {
    await stack.close()
  }
}

async function statesOf(url: string, ids: readonly string[]): Promise<{ [state: string]: number }> {
  const states: { [state: string]: number } = {}
  for (const id of ids) {
    const instance = await call(url, 'GET', `/v1/instances/${id}`)
    const state = String(Reflect.get(Object(Reflect.get(Object(instance?.body), 'status')), 'state'))
    states[state] = (states[state] ?? 0) + 1
  }
  return states
}

/** Wait until all of them run; gives how many are in which state. */
async function allRun(url: string, ids: readonly string[]): Promise<{ [state: string]: number }> {
  for (const id of ids) await call(url, 'GET', `/v1/instances/${id}?wait_for=ready&timeout=20`)
  const states = await statesOf(url, ids)
  assert.deepEqual(states, { running: ids.length })
  return states
}

async function lastly<T>(read: () => Promise<T>, wanted: T): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const value = await read()
    if (value === wanted || attempt === 200) return value
    await delay(50)
  }
}

/** Time on a processor, in ticks of 10 ms (proc_pid_stat(5), utime and stime). */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

const scenarios: { [name: string]: (disk: SmallDisk) => Promise<object> } = {
  everything,
  deletes,
  ledger,
  image: (disk) => step(disk, 'image'),
  disk: (disk) => step(disk, 'disk'),
  network: (disk) => step(disk, 'network'),
  start: (disk) => step(disk, 'start'),
}
const scenario = scenarios[process.argv[2] ?? '']
assert.ok(scenario !== undefined, `scenarios: ${Object.keys(scenarios).join(', ')}`)
const disk = new SmallDisk(scenario === ledger ? 8 : 64)
try {
  const seen = await scenario(disk)
  process.stdout.write(`${JSON.stringify(seen)}\n`)
} finally {
  disk.remove()
}
