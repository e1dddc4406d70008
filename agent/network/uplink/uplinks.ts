import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { hostTableName, uplinkName } from '@berth/contract/hosts/names.ts'
import { formatAddress, holds, networkOf, parseAddress, sizeOf } from '@berth/contract/networks/cidr.ts'
import type { NetworkHealth } from '../../host-driver.ts'
import type { KnownObjects } from '../../sys/leftovers.ts'
import { type Abortable, CommandError, runCommand } from '../../sys/run-command.ts'
import { together } from '../../sys/together.ts'
import { parseLinks, readSettings } from '../healing/observation.ts'
import { hostOrphans, linkAlias } from '../healing/orphans.ts'
import { uplinkInside, uplinkRange } from '../names.ts'
import { compareListings, ExpectedListing, readListing } from '../ruleset/listing.ts'
import { renderHostRuleset } from './host-ruleset.ts'

/** The two ends of an uplink: the host's is the VPC's gateway to the world. */
export interface Uplink {
  name: string
  outsideAddress: string
  insideAddress: string
}

/** How many pairs the range of the uplinks holds; the first is left out, as networks are. */
const pairs = sizeOf(networkOf(uplinkRange)) / 2

/**
 * The uplinks of the VPCs of this host, with the rules and routes of the host's own network namespace. The kernel
 * remembers which pair of addresses an uplink has; a new one gets the lowest that no link of the host has, so two
 * installations can share a machine.
 */
export class Uplinks {
  readonly #installation: string
  readonly #announceOn: string | null
  /** Public addresses by VPC; a VPC that is here has an uplink. */
  readonly #publicAddresses = new Map<string, readonly string[]>()
  /** By VPC, the uplinks that this run of the agent has made or looked at, with the routes to those addresses. */
  readonly #whole = new Map<string, Uplink>()
  #queue: Promise<unknown> = Promise.resolve()
  #forwarding = false
  readonly #expected: ExpectedListing

  /** `announceOn` names the interface that answers for the public addresses; null when only this host reaches them. */
  constructor(installation: string, announceOn: string | null) {
    this.#installation = installation
    this.#announceOn = announceOn
    this.#expected = new ExpectedListing(hostTableName(installation))
  }

  /** Note the uplink and the public addresses of a VPC that an earlier run of the agent set up. */
  restore(vpcId: string, publicAddresses: readonly string[]): void {
    this.#publicAddresses.set(vpcId, publicAddresses)
  }

  /**
   * Have a VPC's namespace, which is there when it is `ready`, reach the world, and be reached by these public addresses.
   * What is the host's own is begun before that. Idempotent.
   */
  ensure(
    vpcId: string,
    inside: { namespace: string; ready: Promise<void> },
    publicAddresses: readonly string[],
    options: Abortable,
  ): Promise<Uplink> {
    return this.#inTurn(() => this.#ensure(vpcId, inside, publicAddresses, options))
  }

  /**
   * Have a VPC's namespace, which reaches the world, be reached by other public addresses: by what differs, where this run
   * of the agent knows what there is.
   */
  setAddresses(vpcId: string, namespace: string, addresses: readonly string[], options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const uplink = this.#whole.get(vpcId)
      const before = this.#publicAddresses.get(vpcId) ?? []
      if (uplink !== undefined) {
        this.#whole.delete(vpcId) // until all of it is done
        this.#claim(vpcId, addresses)
        const change = { gone: difference(before, addresses), wanted: difference(addresses, before) }
        const done = together(this.#applyRules(options), this.#changeRoutes(uplink, change, options))
        const failed = await done.then(
          () => null,
          (error: unknown) => error,
        )
        if (failed === null) {
          this.#whole.set(vpcId, uplink)
          return
        }
        if (options.signal?.aborted) throw failed
      }
      await this.#ensure(vpcId, { namespace, ready: Promise.resolve() }, addresses, options)
    })
  }

  async #ensure(
    vpcId: string,
    inside: { namespace: string; ready: Promise<void> },
    publicAddresses: readonly string[],
    options: Abortable,
  ): Promise<Uplink> {
    this.#whole.delete(vpcId)
    this.#claim(vpcId, publicAddresses)
    const [{ uplink, made }] = await together(
      this.#ensureLink(uplinkName(this.#installation, vpcId), inside, options),
      this.#ensureForwarding(options),
      this.#applyRules(options),
    )
    if (made) await this.#changeRoutes(uplink, { gone: [], wanted: publicAddresses }, options)
    else await this.#syncRoutes(uplink, publicAddresses, options)
    this.#whole.set(vpcId, uplink)
    return uplink
  }

  /** Have a VPC reached by some only of the addresses that it had; the rules still speak of the others. Idempotent. */
  keepAddresses(vpcId: string, kept: readonly string[], options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const known = this.#whole.get(vpcId)
      const gone = difference(this.#publicAddresses.get(vpcId) ?? [], kept)
      this.#whole.delete(vpcId)
      this.#claim(vpcId, kept)
      const drop = ({ name }: Uplink, addresses: readonly string[]) =>
        hostBatch(
          addresses.map((address) => `route del ${address}/32 dev ${name}`),
          options,
        )
      const dropThere = async () => {
        const uplink = await this.find(vpcId, options)
        if (uplink === null) return // they went with it
        const routes = await publicRoutes(options)
        await drop(
          uplink,
          gone.filter((address) => routes.some(leadsTo(address, uplink))),
        )
      }
      if (known === undefined) await dropThere()
      else await drop(known, gone).catch(dropThere)
      if (this.#announceOn !== null) await this.#withdraw(gone, options)
      if (known !== undefined) this.#whole.set(vpcId, known)
    })
  }

  /** Load the rules of the host's own table for the uplinks and addresses that there are by now. */
  loadRules(options: Abortable): Promise<void> {
    return this.#inTurn(() => this.#applyRules(options))
  }

  /** Leave nothing of a VPC's uplink, but that the rules still speak of it. Idempotent. */
  remove(vpcId: string, options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const name = uplinkName(this.#installation, vpcId)
      if ((await hostLinks(options)).has(name)) await hostBatch([`link del ${name}`], options) // its routes go with it
      this.#whole.delete(vpcId)
      if (this.#announceOn !== null) await this.#withdraw(this.#publicAddresses.get(vpcId) ?? [], options)
      this.#publicAddresses.delete(vpcId)
    })
  }

  /** An address leads to the VPC that got it last. */
  #claim(vpcId: string, addresses: readonly string[]): void {
    for (const [other, theirs] of this.#publicAddresses) {
      this.#publicAddresses.set(
        other,
        theirs.filter((address) => !addresses.includes(address)),
      )
    }
    this.#publicAddresses.set(vpcId, addresses)
  }

  /** The uplink of a VPC as it is; null when the host's end is missing, down, or has no address of the range. */
  async find(vpcId: string, options: Abortable): Promise<Uplink | null> {
    return (await this.#findAll(options)).get(uplinkName(this.#installation, vpcId)) ?? null
  }

  /** The same of all that there are, by the name of the host's end. */
  async #findAll(options: Abortable): Promise<Map<string, Uplink>> {
    const { stdout } = await runCommand(['ip', '-json', 'addr', 'show', 'type', 'veth'], options)
    return new Map(
      [...parseLinks(stdout)].flatMap(([name, { up, addresses }]): [string, Uplink][] => {
        const outside = addresses.find((address) => address.endsWith('/31') && inRange(address))
        return up && outside !== undefined ? [[name, { name, ...pairAddresses(pairOf(outside)) }]] : []
      }),
    )
  }

  /** Remove the link of an uplink whose other end is lost; `ensure` makes it anew. */
  cut(vpcId: string, options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const name = uplinkName(this.#installation, vpcId)
      this.#whole.delete(vpcId)
      if ((await hostLinks(options)).has(name)) await hostBatch([`link del ${name}`], options)
    })
  }

  /**
   * Put right what is not as it should be in the host's own namespace: forwarding, the table, routes to public addresses
   * and who answers for them. Adds what it did to `repairs`, also when it fails later. Links are their VPC's matter: it gives
   * those that are whole, by the name of the host's end.
   */
  heal(repairs: NetworkHealth['repairs'], options: Abortable): Promise<ReadonlyMap<string, Uplink>> {
    return this.#inTurn(async () => {
      const forwarding = await readSettings([], ['net.ipv4.ip_forward'], options)
      if (forwarding.get('net.ipv4.ip_forward') !== '1') {
        this.#forwarding = false
        await this.#ensureForwarding(options)
        repairs.push({ vpc_id: '', object: 'host_setting', detail: 'net.ipv4.ip_forward was off' })
      }
      const ruleset = this.#ruleset()
      const wanted = await this.#expected.of(ruleset, options)
      const difference = compareListings(wanted, await readListing([], this.#table, options))
      if (difference !== null) {
        const empty = renderHostRuleset({ table: this.#table, uplinks: [], publicAddresses: [], announced: false })
        await loadHostRules(difference.foreign ? empty + ruleset : ruleset, options)
        repairs.push({ vpc_id: '', object: 'host_ruleset', detail: difference.detail.slice(0, 500) })
      }
      const uplinks = await this.#findAll(options)
      await this.#healRoutes(uplinks, repairs, options)
      return uplinks
    })
  }

  /** What there is of this installation in the host's own namespace that no known VPC explains. */
  findOrphans(known: () => KnownObjects, options: Abortable): Promise<HostOrphan[]> {
    return this.#inTurn(async () => {
      const expected = this.#publicAddresses.size === 0 ? null : await this.#expected.of(this.#ruleset(), options)
      return hostOrphans(this.#installation, known, expected, options)
    })
  }

  async #healRoutes(
    uplinks: ReadonlyMap<string, Uplink>,
    repairs: NetworkHealth['repairs'],
    options: Abortable,
  ): Promise<void> {
    const withAddresses = [...this.#publicAddresses].filter(([, addresses]) => addresses.length > 0)
    if (withAddresses.length === 0) return
    const [routes, answered] = await together(
      publicRoutes(options),
      this.#announceOn === null ? Promise.resolve(null) : proxiesOf(this.#announceOn, options),
    )
    const missing = (list: readonly string[]) => `${list[0]} is missing, one of ${list.length}`
    for (const [vpcId, addresses] of withAddresses) {
      const uplink = uplinks.get(uplinkName(this.#installation, vpcId))
      if (uplink === undefined) continue // they come with it
      const unrouted = addresses.filter((address) => !routes.some(leadsTo(address, uplink)))
      const unanswered = addresses.filter((address) => answered?.includes(address) === false)
      if (unrouted.length + unanswered.length === 0) continue
      await this.#syncRoutes(uplink, addresses, options)
      if (unrouted.length > 0) repairs.push({ vpc_id: vpcId, object: 'host_route', detail: missing(unrouted) })
      if (unanswered.length > 0) repairs.push({ vpc_id: vpcId, object: 'host_neighbour', detail: missing(unanswered) })
    }
  }

  async #ensureForwarding(options: Abortable): Promise<void> {
    if (this.#forwarding) return
    // arping speaks from the address it announces, which the host itself does not have
    const settings = ['net.ipv4.ip_forward=1', ...(this.#announceOn === null ? [] : ['net.ipv4.ip_nonlocal_bind=1'])]
    await runCommand(['sysctl', '-q', '-w', ...settings], options)
    this.#forwarding = true
  }

  /** Have the pair of links; tells whether it was made. */
  async #ensureLink(
    name: string,
    { namespace, ready }: { namespace: string; ready: Promise<void> },
    options: Abortable,
  ): Promise<{ uplink: Uplink; made: boolean }> {
    const [links] = await together(hostLinks(options), ready)
    const existing = links.get(name)
    const outside = existing?.find((address) => inRange(address))
    const pair = outside === undefined ? lowestFreePair(links) : pairOf(outside)
    const { outsideAddress, insideAddress } = pairAddresses(pair)
    const made = existing === undefined
    const alias = linkAlias(this.#installation)
    await hostBatch(
      [
        ...(made ? [`link add ${name} type veth peer name ${uplinkInside} netns ${namespace}`] : []),
        `addr replace ${outsideAddress}/31 dev ${name}`,
        `link set ${name} alias ${alias} up`,
      ],
      options,
    )
    return { uplink: { name, outsideAddress, insideAddress }, made }
  }

  async #applyRules(options: Abortable): Promise<void> {
    await loadHostRules(this.#ruleset(), options)
  }

  get #table(): string {
    return hostTableName(this.#installation)
  }

  #ruleset(): string {
    return renderHostRuleset({
      table: this.#table,
      uplinks: [...this.#publicAddresses.keys()].map((vpcId) => uplinkName(this.#installation, vpcId)),
      publicAddresses: [...this.#publicAddresses.values()].flat(),
      announced: this.#announceOn !== null,
    })
  }

  /** Have routes to exactly these public addresses over an uplink, whatever there is. */
  async #syncRoutes(uplink: Uplink, addresses: readonly string[], options: Abortable): Promise<void> {
    const routes = await publicRoutes(options)
    const routed = routes.filter(({ dev }) => dev === uplink.name).map(({ address }) => address)
    const change = { gone: difference(routed, addresses), wanted: addresses, fresh: difference(addresses, routed) }
    await this.#changeRoutes(uplink, change, options)
  }

  /** Take routes away and have others; those that are `fresh`, all of them unless told, the network is told of. */
  async #changeRoutes(
    uplink: Uplink,
    { gone, wanted, fresh = wanted }: Record<'gone' | 'wanted', readonly string[]> & { fresh?: readonly string[] },
    options: Abortable,
  ): Promise<void> {
    await hostBatch(
      [
        ...gone.map((address) => `route del ${address}/32 dev ${uplink.name}`),
        ...wanted.map((address) => `route replace ${address}/32 via ${uplink.insideAddress} dev ${uplink.name}`),
      ],
      options,
    )
    if (this.#announceOn === null) return
    await this.#withdraw(gone, options)
    await hostBatch(
      wanted.map((address) => `neigh replace proxy ${address} dev ${this.#announceOn}`),
      options,
    )
    for (const address of fresh) await announce(address, this.#announceOn, options)
  }

  async #withdraw(addresses: readonly string[], options: Abortable): Promise<void> {
    for (const address of addresses) {
      await hostBatch([`neigh del proxy ${address} dev ${this.#announceOn}`], options).catch((error) => {
        if (!(error instanceof CommandError) || error.exitCode === null) throw error // it may not be there
      })
    }
  }

  /** Changes of the host's namespace happen one after the other, also when one fails. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#queue.then(work)
    this.#queue = mine.catch(() => undefined)
    return mine
  }
}

/** Tell the network that an address is here now (RFC 5227). That nobody answers is what is wanted. */
async function announce(address: string, device: string, options: Abortable): Promise<void> {
  await runCommand(['arping', '-q', '-A', '-c', '1', '-I', device, '-s', address, address], options)
}

/** Addresses of each link of the host's namespace, by its name. */
async function hostLinks(options: Abortable): Promise<Map<string, string[]>> {
  const { stdout } = await runCommand(['ip', '-json', 'addr', 'show'], options)
  return new Map([...parseLinks(stdout)].map(([name, { addresses }]) => [name, [...addresses]]))
}

interface PublicRoute {
  address: string
  dev: string
}

const leadsTo =
  (address: string, { name }: Uplink) =>
  (route: PublicRoute) =>
    route.address === address && route.dev === name

/** The host's routes by way of another, as those to public addresses are; not those of routing daemons, which may be many. */
async function publicRoutes(options: Abortable): Promise<PublicRoute[]> {
  const argv = ['ip', '-json', '-4', 'route', 'show', 'proto', 'boot']
  const { stdout } = await runCommand(argv, options)
  return parseList<{ dst: string; gateway?: string; dev?: string }>(stdout)
    .filter(({ gateway }) => gateway !== undefined)
    .map(({ dst, dev = '' }) => ({ address: dst.replace('/32', ''), dev }))
}

/** Addresses that a device of the host answers for. */
async function proxiesOf(device: string, options: Abortable): Promise<string[]> {
  const { stdout } = await runCommand(['ip', '-json', '-4', 'neigh', 'show', 'proxy', 'dev', device], options)
  return parseList<{ dst: string }>(stdout).map(({ dst }) => dst)
}

async function loadHostRules(ruleset: string, options: Abortable): Promise<void> {
  await runCommand(['nft', '-f', '-'], { ...options, input: ruleset })
}

async function hostBatch(lines: readonly string[], options: Abortable): Promise<void> {
  if (lines.length > 0) await runCommand(['ip', '-batch', '-'], { ...options, input: `${lines.join('\n')}\n` })
}

/** What ip(8) prints as JSON; nothing at all for an empty list. */
function parseList<T>(json: string): T[] {
  const list: unknown = JSON.parse(json.trim() === '' ? '[]' : json)
  return Array.isArray(list) ? (list as T[]) : []
}

function difference(list: readonly string[], other: readonly string[]): string[] {
  return list.filter((each) => !other.includes(each))
}

/** Whether an address, with or without its prefix length, is of the range of the uplinks. */
function inRange(address: string): boolean {
  return holds(uplinkRange, withoutPrefix(address))
}

function pairOf(address: string): number {
  return Math.floor(((parseAddress(withoutPrefix(address)) ?? 0) - networkOf(uplinkRange).first) / 2)
}

function withoutPrefix(address: string): string {
  return address.replace(/[/].*$/, '')
}

function lowestFreePair(links: ReadonlyMap<string, readonly string[]>): number {
  const taken = new Set([...links.values()].flat().filter(inRange).map(pairOf))
  for (let pair = 1; pair < pairs; pair++) if (!taken.has(pair)) return pair
  throw new Error(`all ${pairs} pairs of ${uplinkRange} are taken`)
}

function pairAddresses(pair: number): Pick<Uplink, 'outsideAddress' | 'insideAddress'> {
  const first = networkOf(uplinkRange).first + 2 * pair
  return { outsideAddress: formatAddress(first), insideAddress: formatAddress(first + 1) }
}
