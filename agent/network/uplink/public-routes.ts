import type { NetworkHealth } from '../../host-driver.ts'
import { type Abortable, CommandError, runCommand } from '../../sys/run-command.ts'
import { together } from '../../sys/together.ts'
import { parseJsonList } from '../healing/observation.ts'
import { linkAlias } from '../healing/orphans.ts'
import { hostBatch } from './host-batch.ts'

/** The end of an uplink that a route to a public address goes to. */
export interface Way {
  /** The host's end. */
  name: string
  insideAddress: string
}

export interface PublicRoutesOptions {
  installation: string
  /** Interface that answers for the addresses; null when only this host reaches them. */
  announceOn: string | null
  /** An address that a VPC here should have is led elsewhere from now on, in words, or is not any more (null). */
  onTaken: (address: string, by: string | null) => void
}

/**
 * The host's routes to the public addresses of the VPCs on it, and who answers for them on the network around the host. Which
 * VPC an address leads to is decided by `PublicAddresses`.
 *
 * A route that leads an address elsewhere, made by another installation on this machine or by hand, is not taken over:
 * both would take it from each other for ever. Such an address is `taken`. Each look tries it again, and has it as soon as
 * the other one has let go of it. Calls come one after the other.
 */
export class PublicRoutes {
  readonly #options: PublicRoutesOptions
  /** By address, the uplink that this run of the agent has it led to. */
  readonly #led = new Map<string, string>()
  /** By address, whom it leads to in place of a VPC here. */
  readonly #taken = new Map<string, string>()

  constructor(options: PublicRoutesOptions) {
    this.#options = options
  }

  /** The addresses that should lead to a VPC here and are led elsewhere on this machine: by whom, in words. */
  get taken(): ReadonlyMap<string, string> {
    return this.#taken
  }

  /** Have an uplink lead these addresses, by what differs from what it was made to lead. */
  async change(way: Way, wanted: readonly string[], options: Abortable): Promise<void> {
    const before = this.#ledBy(way)
    const [gone, fresh] = [difference(before, wanted), difference(wanted, before)]
    const lines = [...gone.map((address) => del(address, way)), ...fresh.map((address) => add(address, way))]
    const refused = await hostBatch(lines, options).then(
      () => false,
      (error) => (isRefusal(error) ? true : Promise.reject(error)),
    )
    await this.#withdraw(gone, options)
    // another VPC's until now, somebody else's, or not as it was known
    if (refused) return this.sync(way, wanted, options)
    this.#noteLed(way, wanted)
    await this.#answer(fresh, fresh, options)
  }

  /** Have an uplink lead exactly these addresses, but for those that are taken, whatever there is. */
  async sync(way: Way, addresses: readonly string[], options: Abortable): Promise<void> {
    const routes = await readRoutes(options)
    const here = routes.filter(({ dev }) => dev === way.name)
    const gone = here.map(({ address }) => address).filter((address) => !addresses.includes(address))
    const unrouted = addresses.filter((address) => !routes.some(leadsTo(address, way)))
    const others = routes.filter(({ address, dev }) => unrouted.includes(address) && dev !== way.name)
    const holders = others.length === 0 ? new Map<string, string>() : await this.#holders(others, options)
    const wanted = unrouted.filter((address) => !holders.has(address))
    const isKnown = (address: string) => routes.some((route) => route.address === address)
    await hostBatch(
      [
        ...gone.map((address) => del(address, way)),
        // what nobody leads is added: another may do so by now
        ...wanted.map((address) => (isKnown(address) ? replace(address, way) : add(address, way))),
      ],
      options,
    )
    this.#noteLed(way, addresses, holders)
    await this.#withdraw(gone, options)
    await this.#answer(this.#held(addresses), wanted, options)
  }

  /** Lead these addresses no more over an uplink, which may have gone with its routes. Idempotent. */
  async drop(way: Pick<Way, 'name'>, addresses: readonly string[], options: Abortable): Promise<void> {
    if (addresses.length === 0) return
    const routes = (await readRoutes(options)).filter(({ address }) => addresses.includes(address))
    await hostBatch(
      routes.filter(({ dev }) => dev === way.name).map(({ address }) => del(address, way)),
      options,
    )
    for (const address of addresses) if (this.#led.get(address) === way.name) this.#led.delete(address)
    const elsewhere = routes.filter(({ dev }) => dev !== way.name).map(({ address }) => address)
    await this.#withdraw(difference(addresses, elsewhere), options)
  }

  /** An uplink is made anew, or went, and its routes with it. */
  lost({ name }: Pick<Way, 'name'>): void {
    for (const [address, led] of this.#led) if (led === name) this.#led.delete(address)
  }

  /** Put right what the uplinks, by the ids of their VPCs, do not lead as they should. Adds what it did to `repairs`. */
  async heal(
    wanted: readonly { vpcId: string; way: Way; addresses: readonly string[] }[],
    repairs: NetworkHealth['repairs'],
    options: Abortable,
  ): Promise<void> {
    const { announceOn } = this.#options
    const led = wanted.filter(({ way, addresses }) => addresses.length > 0 || this.#ledBy(way).length > 0)
    if (led.length === 0) return
    const [routes, answered] = await together(
      readRoutes(options),
      announceOn === null ? Promise.resolve(null) : proxiesOf(announceOn, options),
    )
    for (const { vpcId, way, addresses } of led) {
      const held = this.#held(addresses) // what was taken until now and can be had is no damage
      const unrouted = addresses.filter((address) => !routes.some(leadsTo(address, way)))
      const unanswered = held.filter((address) => answered?.includes(address) === false)
      const stray = difference(this.#ledBy(way), addresses) // of a card that could not be left without it
      if (unrouted.length + unanswered.length + stray.length === 0) continue
      await this.sync(way, addresses, options)
      const repaired = (object: 'host_route' | 'host_neighbour', missing: readonly string[]) => {
        const put = this.#held(missing)
        if (put.length === 0) return
        repairs.push({ vpc_id: vpcId, object, detail: `${put[0]} is missing, one of ${put.length}` })
      }
      repaired(
        'host_route',
        unrouted.filter((address) => held.includes(address)),
      )
      repaired('host_neighbour', unanswered)
    }
  }

  /** Those of some addresses that are not led elsewhere. */
  #held(addresses: readonly string[]): string[] {
    return addresses.filter((address) => !this.#taken.has(address))
  }

  #ledBy({ name }: Way): string[] {
    return [...this.#led].filter(([, led]) => led === name).map(([address]) => address)
  }

  /** An uplink leads these by now, but for those that others do; `holders` says by whom. */
  #noteLed(way: Way, addresses: readonly string[], holders: ReadonlyMap<string, string> = new Map()): void {
    this.lost(way)
    for (const address of addresses) {
      const by = holders.get(address) ?? null
      if (by === null) this.#led.set(address, way.name)
      const before = this.#taken.get(address) ?? null
      if (by === null) this.#taken.delete(address)
      else this.#taken.set(address, by)
      if (by !== before) this.#options.onTaken(address, by)
    }
  }

  /** Whose routes of these are not this installation's own: by address, in words. */
  async #holders(routes: readonly PublicRoute[], options: Abortable): Promise<Map<string, string>> {
    const { stdout } = await runCommand(['ip', '-json', 'link', 'show'], options)
    const aliases = new Map(parseJsonList(stdout).map(({ ifname, ifalias }) => [String(ifname), String(ifalias ?? '')]))
    const own = linkAlias(this.#options.installation)
    const mark = linkAlias('')
    return new Map(
      routes.flatMap(({ address, dev }): [string, string][] => {
        const alias = aliases.get(dev) ?? ''
        if (alias === own) return []
        if (alias.startsWith(mark)) return [[address, `installation ${alias.slice(mark.length)} (${dev})`]]
        return [[address, dev === '' ? 'a route of its own' : `a route of its own (${dev})`]]
      }),
    )
  }

  /** Have the host answer for addresses; the network is told of the `fresh` ones. */
  async #answer(addresses: readonly string[], fresh: readonly string[], options: Abortable): Promise<void> {
    const { announceOn } = this.#options
    if (announceOn === null) return
    await hostBatch(
      addresses.map((address) => `neigh replace proxy ${address} dev ${announceOn}`),
      options,
    )
    for (const address of fresh) await announce(address, announceOn, options)
  }

  async #withdraw(addresses: readonly string[], options: Abortable): Promise<void> {
    const { announceOn } = this.#options
    if (announceOn === null) return
    for (const address of addresses) {
      await hostBatch([`neigh del proxy ${address} dev ${announceOn}`], options).catch((error) => {
        if (!isRefusal(error)) throw error // it may not be there
      })
    }
  }
}

/** Tell the network that an address is here now (RFC 5227). That nobody answers is what is wanted. */
async function announce(address: string, device: string, options: Abortable): Promise<void> {
  await runCommand(['arping', '-q', '-A', '-c', '1', '-I', device, '-s', address, address], options)
}

interface PublicRoute {
  address: string
  /** "" for none, as of a blackhole, and for several. */
  via: string
  dev: string
}

const leadsTo =
  (address: string, { name, insideAddress }: Way) =>
  (route: PublicRoute) =>
    route.address === address && route.dev === name && route.via === insideAddress

/**
 * The host's routes to single addresses, as those to public addresses are and those that stand in their way: made by
 * ip(8) or a network configuration, and without a metric, by which others make room. Routing daemons have a metric.
 */
async function readRoutes(options: Abortable): Promise<PublicRoute[]> {
  const protocols = ['boot', 'static'] // each asked for by itself: the kernel filters, a daemon's may be a million
  const listed = await together(
    ...protocols.map((protocol) => runCommand(['ip', '-json', '-4', 'route', 'show', 'proto', protocol], options)),
  )
  return listed
    .flatMap(({ stdout }) => parseJsonList(stdout))
    .filter(({ dst, metric }) => /^[\d.]+$/.test(String(dst)) && metric === undefined)
    .map(({ dst, gateway = '', dev = '' }) => ({ address: String(dst), via: String(gateway), dev: String(dev) }))
}

/** Addresses that a device of the host answers for. */
async function proxiesOf(device: string, options: Abortable): Promise<string[]> {
  const { stdout } = await runCommand(['ip', '-json', '-4', 'neigh', 'show', 'proxy', 'dev', device], options)
  return parseJsonList(stdout).map(({ dst }) => String(dst))
}

const add = (address: string, way: Way) => `route add ${address}/32 via ${way.insideAddress} dev ${way.name}`
const replace = (address: string, way: Way) => `route replace ${address}/32 via ${way.insideAddress} dev ${way.name}`
const del = (address: string, way: Pick<Way, 'name'>) => `route del ${address}/32 dev ${way.name}`

/** Whether the command ran and what it asked for was refused. */
function isRefusal(error: unknown): boolean {
  return error instanceof CommandError && error.exitCode !== null
}

function difference(list: readonly string[], other: readonly string[]): string[] {
  return list.filter((each) => !other.includes(each))
}
