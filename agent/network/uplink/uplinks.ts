import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'
import { hostTableName, uplinkName } from '@berth/contract/hosts/names.ts'
import { formatAddress, holds, networkOf, parseAddress, sizeOf } from '@berth/contract/networks/cidr.ts'
import type { NetworkHealth } from '../../host-driver.ts'
import type { KnownObjects } from '../../sys/leftovers.ts'
import { type Abortable, runCommand } from '../../sys/run-command.ts'
import { together } from '../../sys/together.ts'
import { parseLinks, readSettings } from '../healing/observation.ts'
import { hostOrphans, linkAlias } from '../healing/orphans.ts'
import { uplinkInside, uplinkRange } from '../names.ts'
import type { PublicAddresses } from '../public-addresses.ts'
import { compareListings, ExpectedListing, readListing } from '../ruleset/listing.ts'
import { hostBatch } from './host-batch.ts'
import { renderHostRuleset } from './host-ruleset.ts'
import { PublicRoutes, type PublicRoutesOptions } from './public-routes.ts'

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
  readonly #announced: boolean
  readonly #routes: PublicRoutes
  /** Whether the rules speak of an address that is led elsewhere by now, or not of one that no more is. */
  #rulesStale = false
  readonly #addresses: PublicAddresses
  /** The VPCs that are here: each has an uplink. */
  readonly #vpcs = new Set<string>()
  /** By VPC, the uplinks that this run of the agent has made or looked at, with the routes to its public addresses. */
  readonly #whole = new Map<string, Uplink>()
  #queue: Promise<unknown> = Promise.resolve()
  #forwarding = false
  readonly #expected: ExpectedListing

  constructor(addresses: PublicAddresses, { installation, announceOn, onTaken }: PublicRoutesOptions) {
    this.#addresses = addresses
    this.#installation = installation
    this.#announced = announceOn !== null
    this.#routes = new PublicRoutes({
      installation,
      announceOn,
      onTaken: (address, by) => {
        this.#rulesStale = true
        onTaken(address, by)
      },
    })
    this.#expected = new ExpectedListing(hostTableName(installation))
  }

  /** The addresses that should lead to a VPC here and are led elsewhere on this machine: by whom, in words. */
  get taken(): ReadonlyMap<string, string> {
    return this.#routes.taken
  }

  /** Note the uplink of a VPC that an earlier run of the agent set up. */
  restore(vpcId: string): void {
    this.#vpcs.add(vpcId)
  }

  /**
   * Have a VPC's namespace, which is there when it is `ready`, reach the world, and be reached by its public addresses.
   * What is the host's own is begun before that. Idempotent.
   */
  ensure(vpcId: string, inside: { namespace: string; ready: Promise<void> }, options: Abortable): Promise<Uplink> {
    return this.#inTurn(() => this.#ensure(vpcId, inside, options))
  }

  /**
   * Have a VPC's namespace, which reaches the world, be reached by the public addresses that it has by now: by what differs,
   * where this run of the agent knows what there is.
   */
  setAddresses(vpcId: string, namespace: string, options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const uplink = this.#whole.get(vpcId)
      if (uplink !== undefined) {
        this.#whole.delete(vpcId) // until all of it is done
        const change = this.#routes.change(uplink, this.#addresses.ofVpc(vpcId), options)
        const failed = await together(this.#applyRules(options), change).then(
          () => null,
          (error: unknown) => error,
        )
        if (failed === null) {
          await this.#freshenRules(options)
          this.#whole.set(vpcId, uplink)
          return
        }
        if (options.signal?.aborted) throw failed
      }
      await this.#ensure(vpcId, { namespace, ready: Promise.resolve() }, options)
    })
  }

  async #ensure(
    vpcId: string,
    inside: { namespace: string; ready: Promise<void> },
    options: Abortable,
  ): Promise<Uplink> {
    this.#whole.delete(vpcId)
    this.#vpcs.add(vpcId)
    const [{ uplink, made }] = await together(
      this.#ensureLink(uplinkName(this.#installation, vpcId), inside, options),
      this.#ensureForwarding(options),
      this.#applyRules(options),
    )
    const addresses = this.#addresses.ofVpc(vpcId)
    if (made) {
      this.#routes.lost(uplink)
      await this.#routes.change(uplink, addresses, options)
    } else await this.#routes.sync(uplink, addresses, options)
    await this.#freshenRules(options)
    this.#whole.set(vpcId, uplink)
    return uplink
  }

  /** Have a VPC no more reached by addresses that it had; the rules still speak of them. Idempotent. */
  dropAddresses(vpcId: string, addresses: readonly string[], options: Abortable): Promise<void> {
    return this.#inTurn(() => this.#routes.drop({ name: uplinkName(this.#installation, vpcId) }, addresses, options))
  }

  /** Load the rules of the host's own table for the uplinks and addresses that there are by now. */
  loadRules(options: Abortable): Promise<void> {
    return this.#inTurn(() => this.#applyRules(options))
  }

  /** Leave nothing of a VPC's uplink and of the last addresses it led; but the rules still speak of it. Idempotent. */
  remove(vpcId: string, addresses: readonly string[], options: Abortable): Promise<void> {
    return this.#inTurn(async () => {
      const name = uplinkName(this.#installation, vpcId)
      this.#whole.delete(vpcId)
      await this.#routes.drop({ name }, addresses, options)
      if ((await hostLinks(options)).has(name)) await hostBatch([`link del ${name}`], options)
      this.#routes.lost({ name })
      this.#vpcs.delete(vpcId)
    })
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
      const uplinks = await this.#findAll(options)
      const led = [...this.#vpcs].flatMap((vpcId) => {
        const addresses = this.#addresses.ofVpc(vpcId)
        const way = uplinks.get(uplinkName(this.#installation, vpcId))
        return way === undefined ? [] : [{ vpcId, way, addresses }] // they come with it
      })
      try {
        await this.#routes.heal(led, repairs, options)
      } finally {
        await this.#healRules(repairs, options) // behind them: what is led elsewhere the rules do not speak of
      }
      return uplinks
    })
  }

  async #healRules(repairs: NetworkHealth['repairs'], options: Abortable): Promise<void> {
    await this.#freshenRules(options)
    const ruleset = this.#ruleset()
    const wanted = await this.#expected.of(ruleset, options)
    const difference = compareListings(wanted, await readListing([], this.#table, options))
    if (difference === null) return
    const empty = renderHostRuleset({ table: this.#table, uplinks: [], publicAddresses: [], announced: false })
    await loadHostRules(difference.foreign ? empty + ruleset : ruleset, options)
    repairs.push({ vpc_id: '', object: 'host_ruleset', detail: difference.detail.slice(0, 500) })
  }

  /** What there is of this installation in the host's own namespace that no known VPC explains. */
  findOrphans(known: () => KnownObjects, options: Abortable): Promise<HostOrphan[]> {
    return this.#inTurn(async () => {
      const expected = this.#vpcs.size === 0 ? null : await this.#expected.of(this.#ruleset(), options)
      return hostOrphans(this.#installation, known, expected, options)
    })
  }

  async #ensureForwarding(options: Abortable): Promise<void> {
    if (this.#forwarding) return
    // arping speaks from the address it announces, which the host itself does not have
    const settings = ['net.ipv4.ip_forward=1', ...(this.#announced ? ['net.ipv4.ip_nonlocal_bind=1'] : [])]
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

  /** Have the rules speak of the addresses that are led here by now. */
  async #freshenRules(options: Abortable): Promise<void> {
    if (!this.#rulesStale) return
    await this.#applyRules(options)
    this.#rulesStale = false
  }

  get #table(): string {
    return hostTableName(this.#installation)
  }

  #ruleset(): string {
    const addresses = this.#addresses.all()
    return renderHostRuleset({
      table: this.#table,
      uplinks: [...this.#vpcs].map((vpcId) => uplinkName(this.#installation, vpcId)),
      // under one that is led elsewhere nothing goes out: the answers would come to another's guest
      publicAddresses: addresses.filter((address) => !this.taken.has(address)),
      announced: this.#announced,
    })
  }

  /** Changes of the host's namespace happen one after the other, also when one fails. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#queue.then(work)
    this.#queue = mine.catch(() => undefined)
    return mine
  }
}

/** Addresses of each link of the host's namespace, by its name. */
async function hostLinks(options: Abortable): Promise<Map<string, string[]>> {
  const { stdout } = await runCommand(['ip', '-json', 'addr', 'show'], options)
  return new Map([...parseLinks(stdout)].map(([name, { addresses }]) => [name, [...addresses]]))
}

async function loadHostRules(ruleset: string, options: Abortable): Promise<void> {
  await runCommand(['nft', '-f', '-'], { ...options, input: ruleset })
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
