import fc from 'fast-check'
import { perform } from './calls.ts'
import { type Command, command, execute } from './commands.ts'
import type { Resources } from './fixtures.ts'
import { type OperationNow, stateByTable, type Tables } from './tables.ts'
import { type SecondHost, World } from './world.ts'

/** Everything that tells one run from another. */
export interface Schedule {
  /** Instances that run when it begins. */
  running: number
  second: SecondHost
  /** Whether serial output reaches the server. */
  console: boolean
  steps: Command[]
}

/** Longest that a world without faults may need to come to rest; milliseconds. */
const restMs = 15 * 60_000

/** Any schedule. */
export const schedule: fc.Arbitrary<Schedule> = fc.record({
  running: fc.constantFrom(0, 1, 1, 2),
  second: fc.constantFrom<SecondHost[]>('at once', 'late', 'never'),
  console: fc.constantFrom(false, false, false, true),
  steps: fc.array(command, { minLength: 1, maxLength: 16, size: 'max' }),
})

/** Run a schedule and let it come to its end; throws when anything broke its promise. */
export async function runSchedule(resources: Resources, plan: Schedule): Promise<void> {
  const world = new World(resources, plan)
  let inOrder = false
  try {
    await world.start()
    await beginRunning(world, plan.running)
    for (const [index, step] of plan.steps.entries()) {
      if (plan.second === 'late' && index === plan.steps.length >> 1) world.hosts[1].start()
      await execute(world, step)
    }
    await comeToRest(world)
    await deleteEverything(world)
    inOrder = true
  } finally {
    await world.close(inOrder)
  }
}

const plain = { keyed: false, lost: false }

async function beginRunning(world: World, count: number): Promise<void> {
  for (let i = 0; i < count; i++) void perform(world, { ...plain, call: 'create', type: 'micro', subnet: 'small' })
  if (count > 0) await world.run(150)
}

/** Faults end, everything that was said arrives: what is wanted must come true. */
async function comeToRest(world: World): Promise<void> {
  for (const host of world.hosts) {
    host.heal()
    if (host === world.hosts[0] || world.second !== 'never') host.start()
  }
  await runUntil(world, 'come to rest', unrest)
}

/** What is not as it was asked to be. */
function unrest(world: World, tables: Tables): string[] {
  const open = [...tables.operations.values()].filter((operation) => operation.finished_at === null)
  const restless = [...tables.instances.values()].filter((instance) => {
    const runs = world.hosts.some((host) => host.machine.running().includes(instance.id))
    const state = stateByTable(instance)
    if (instance.desired === 'deleted') return state !== 'terminated' || runs
    if (instance.host_id === null) return false
    if (instance.report?.generation !== instance.generation) return true
    return instance.desired === 'running' ? state !== 'running' || !runs : state !== 'stopped' || runs
  })
  return [
    ...open.filter((operation) => !waitsForRoom(operation, tables)).map((operation) => `${operation.type} is open`),
    ...restless.map((instance) => `${instance.id} is ${stateByTable(instance)}, wanted ${instance.desired}`),
    ...misled(world, tables),
  ]
}

/** Public addresses that do not lead to the machines that have them, or lead to others, also to machines that are off. */
function misled(world: World, { instances, publicIps }: Tables): string[] {
  const rows = [...publicIps.values()]
  const holders = new Map(rows.map((row) => [row.address, row.instance_id]))
  return world.hosts.flatMap(({ id: hostId, machine }) => {
    const leads = machine.publicAddresses()
    const running = machine.running().map((id) => ({ id, address: instances.get(id)?.public_ip ?? '' }))
    return [
      ...Object.entries(leads)
        .filter(([address, instance]) => holders.get(address) !== instance)
        .map(([address, instance]) => `${address} of ${holders.get(address)} leads to ${instance} on ${hostId}`),
      ...running
        .filter(({ id, address }) => address !== '' && leads[address] !== id)
        .map(({ id, address }) => `${address} does not lead to ${id} on ${hostId}`),
    ]
  })
}

/** A create may wait for room until its deadline. */
function waitsForRoom(operation: OperationNow, tables: Tables): boolean {
  const instance = tables.instances.get(operation.resource_id)
  return operation.type !== 'instance.delete' && instance?.desired === 'running' && instance.host_id === null
}

/** When the last instance is gone nothing is left of any. */
async function deleteEverything(world: World): Promise<void> {
  const living = [...world.tables().instances.values()].filter((instance) => instance.desired !== 'deleted')
  const ids = [...world.promises.instances.keys()]
  for (const { id } of living) void perform(world, { call: 'delete', pick: ids.indexOf(id), grace: 1 })
  await world.settle()
  await runUntil(world, 'be empty', remains)
}

function remains(world: World, tables: Tables): string[] {
  const living = [...tables.instances.values()].filter((instance) => instance.terminated_at === null)
  const open = [...tables.operations.values()].filter((operation) => operation.finished_at === null)
  return [
    ...living.map((instance) => `${instance.id} is ${stateByTable(instance)}`),
    ...open.map((operation) => `${operation.type} of ${operation.resource_id} is open`),
    ...tables.addresses.map((address) => `address ${address.address} is held by ${address.instance_id}`),
    ...[...tables.publicIps.values()]
      .filter(({ instance_id }) => instance_id !== null)
      .map(({ address, instance_id }) => `public address ${address} is at ${instance_id}`),
    ...tables.hosts.filter((host) => host.allocated_memory_mb !== 0).map((host) => `${host.id} has room reserved`),
    ...world.hosts.flatMap((host) => host.machine.leftovers()),
    ...[...world.reports].flatMap(([id, report]) => report.instances.map((each) => `${id} remembers ${each.id}`)),
    ...[...world.waits].map((wait) => `a client waits for ${wait.target} of ${wait.id}`),
  ]
}

async function runUntil(
  world: World,
  what: string,
  missing: (world: World, tables: Tables) => string[],
): Promise<void> {
  const untilMs = world.time.elapsedMs + restMs
  for (let stepMs = 250; ; stepMs = Math.min(5000, stepMs * 1.5)) {
    const still = world.server.running ? missing(world, world.tables()) : ['the server is down']
    if (still.length === 0) return
    if (world.time.elapsedMs > untilMs) throw new Error(`it does not ${what}:\n${still.join('\n')}`)
    await world.run(stepMs)
  }
}
