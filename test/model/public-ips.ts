import type { PublicIp } from '@berth/contract/networks/public-ips.ts'
import { note, Refused, send } from './client.ts'
import { publicPool } from './fixtures.ts'
import { ServerGone } from './server-process.ts'
import type { Tables } from './tables.ts'
import type { World } from './world.ts'

/** A call about public addresses. `ip` chooses among those that there are, `pick` an instance; null: none. */
export type PublicIpCall =
  | { call: 'allocate'; pick: number | null; lost: boolean }
  | { call: 'attach'; ip: number; pick: number | null; lost: boolean }
  | { call: 'release'; ip: number; lost: boolean }

/** What is stored when a call is made or has been answered. */
type Rows = Pick<Tables, 'instances' | 'publicIps'>

/** Make it; what was promised is noted when it is answered. */
export async function callForPublicIp(world: World, call: PublicIpCall): Promise<void> {
  const { publicIps } = world.tables()
  const ids = [...publicIps.keys()]
  const ip = call.call === 'allocate' ? '' : ids[call.ip % ids.length]
  if (ip === undefined) return
  if (call.call === 'release') return release(world, ip, call.lost)
  const instance = (call.pick === null ? undefined : world.promises.pick(call.pick)) ?? ''
  if (call.call === 'allocate') return allocate(world, instance, call.lost)
  return attach(world, ip, instance, call.lost)
}

async function allocate(world: World, instance: string, lost: boolean): Promise<void> {
  const { judge } = watch(world)
  try {
    const sent = { method: 'POST', path: '/v1/public-ips', body: { spec: { instance_id: instance } } } as const
    const { text } = await send(world, sent, lost)
    shown(world, JSON.parse(text), instance)
  } catch (error) {
    const isRight = (rows: Rows, code: string) =>
      code === 'no_public_addresses' ? rows.publicIps.size === publicPool.addresses : isUnfit(rows, instance, code)
    if (!(error instanceof ServerGone)) judge(`an address for ${instance}`, error, isRight)
    throw error
  } finally {
    world.promises.touched()
  }
}

async function attach(world: World, ip: string, instance: string, lost: boolean): Promise<void> {
  const { judge } = watch(world)
  world.promises.publicIps.moving(ip)
  try {
    const body = { spec: { instance_id: instance } }
    const { text } = await send(world, { method: 'PATCH', path: `/v1/public-ips/${ip}`, body }, lost)
    shown(world, JSON.parse(text), instance)
  } catch (error) {
    const isRight = (rows: Rows, code: string) =>
      code === 'not_found' ? !rows.publicIps.has(ip) : isUnfit(rows, instance, code)
    if (!(error instanceof ServerGone)) judge(`${ip} for ${instance}`, error, isRight)
    throw error
  } finally {
    world.promises.touched()
  }
}

async function release(world: World, ip: string, lost: boolean): Promise<void> {
  const { before, isAlone, judge } = watch(world)
  world.promises.publicIps.releasing(ip)
  try {
    await send(world, { method: 'DELETE', path: `/v1/public-ips/${ip}` }, lost)
    world.promises.publicIps.released(ip)
    if (isAlone() && isHeld(before, ip) && isLiving(world, before.publicIps.get(ip)?.instance_id))
      world.violation(`${ip} was released from the instance it was attached to`)
  } catch (error) {
    const isRight = (rows: Rows, code: string) =>
      code === 'not_found' ? !rows.publicIps.has(ip) : code === 'in_use' && isHeld(rows, ip)
    if (!(error instanceof ServerGone)) {
      judge(`the end of ${ip}`, error, isRight)
      if (isAlone()) world.promises.publicIps.kept(ip)
    }
    throw error
  } finally {
    world.promises.touched()
  }
}

/** Whether an address is attached to an instance that it did not come with. */
function isHeld({ publicIps }: Rows, ip: string): boolean {
  const row = publicIps.get(ip)
  return row !== undefined && row.auto_assigned === 0 && row.instance_id !== null
}

function isLiving(world: World, instance: string | null | undefined): boolean {
  return world.server.stored.instance(instance ?? '')?.terminated_at === null
}

function shown(world: World, shown: PublicIp, instance: string): void {
  const { id, spec, status } = shown
  if (spec.instance_id !== instance) world.violation(`${id} is shown at ${spec.instance_id}, asked for ${instance}`)
  // one that came with the instance that has it goes with it
  if (!status.auto_assigned) world.promises.publicIps.attached(id, spec.instance_id)
}

/** Whether an instance can get no other address, and is said to be unfit for that reason. */
function isUnfit({ instances, publicIps }: Rows, instance: string, code: string): boolean {
  const row = instances.get(instance)
  if (code === 'invalid_state') return row?.desired === 'deleted'
  if (code !== 'validation_failed') return false
  const has = [...publicIps.values()].some((each) => each.instance_id === instance && each.auto_assigned === 0)
  return row === undefined || has
}

/**
 * Look at what is stored when a call is made. Gives that, whether no other call was under way since, and who judges a
 * refusal: alone, it must be right by what was stored then or is now.
 */
function watch(world: World) {
  const before = world.tables()
  const { overlap } = world
  const beganAlone = world.underWay === 1
  world.promises.touched()
  const isAlone = () => beganAlone && world.overlap === overlap && world.underWay === 1
  const judge = (what: string, error: unknown, isRight: (rows: Rows, code: string) => boolean): void => {
    const codes = ['no_public_addresses', 'not_found', 'invalid_state', 'validation_failed', 'in_use']
    const isKnown = error instanceof Refused && codes.includes(error.code)
    const mayBe = isKnown && (!isAlone() || isRight(before, error.code) || isRight(world.tables(), error.code))
    if (!mayBe) note(world, what, error)
  }
  return { before, isAlone, judge }
}

/**
 * What clients were told of public addresses: one that is theirs stays with the instance it was attached to until they
 * say otherwise, or that is deleted; one that was released does not come back.
 */
export class PublicIpPromises {
  /** The instance of each address of a client, "" for none; null: it may be one or the other. */
  readonly #own = new Map<string, string | null>()
  /** Addresses that calls of the clients may have ended. */
  readonly #mayBeGone = new Set<string>()
  readonly #released = new Set<string>()
  /** How many calls since the last look may have moved an address. */
  readonly #moves = new Map<string, number>()
  readonly #violation: (what: string) => void

  constructor(violation: (what: string) => void) {
    this.#violation = violation
  }

  /** A call is made that may move an address. */
  moving(id: string): void {
    this.#moves.set(id, (this.#moves.get(id) ?? 0) + 1)
    if (this.#own.has(id)) this.#own.set(id, null)
  }

  /** It was answered with where the address is; which of several was carried out last is not known. */
  attached(id: string, instance: string): void {
    if (this.#released.has(id)) return // answered first, and carried out later
    this.#own.set(id, (this.#moves.get(id) ?? 0) > 1 ? null : instance)
  }

  /** A call is made to release it. */
  releasing(id: string): void {
    this.#mayBeGone.add(id)
  }

  /** The only call to release it was refused. */
  kept(id: string): void {
    this.#mayBeGone.delete(id)
  }

  released(id: string): void {
    this.#own.delete(id)
    this.#released.add(id)
  }

  /** Hold what is stored against it. */
  check({ publicIps, instances }: Rows): void {
    this.#moves.clear()
    for (const id of this.#released) if (publicIps.has(id)) this.#violation(`${id} was released and is there`)
    for (const [id, instance] of this.#own) {
      const row = publicIps.get(id)
      if (row === undefined) {
        this.#own.delete(id)
        if (!this.#mayBeGone.has(id)) this.#violation(`${id} was acknowledged and is gone`)
        continue
      }
      const now = row.instance_id ?? ''
      const holder = instances.get(instance ?? '')
      const isHolderGone = holder === undefined || holder.terminated_at !== null
      if (instance !== null && now !== instance && !(now === '' && isHolderGone)) {
        this.#violation(`${id} is at "${now}" and was attached to "${instance}"`)
      }
      this.#own.set(id, now)
    }
    this.#mayBeGone.clear()
  }
}
