import { type Abortable, runCommand } from '../../sys/run-command.ts'
import { together } from '../../sys/together.ts'
import { uplinkInside } from '../names.ts'
import { inNamespace, namespaceSettings } from '../namespace.ts'
import { type Listing, readListing } from '../ruleset/listing.ts'

/** A link of a namespace. */
export interface SeenLink {
  up: boolean
  /** Of a tap: some process has it open. A link that is down does not tell. */
  open: boolean
  mtu: number
  mac: string
  /** With prefix lengths. */
  addresses: readonly string[]
}

export interface SeenRoute {
  type: string
  /** `default`, an address, or a network with its prefix length. */
  dst: string
  dev: string
  gateway: string
}

/** What there is of a VPC in its namespace. */
export interface SeenNamespace {
  links: ReadonlyMap<string, SeenLink>
  routes: readonly SeenRoute[]
  /** MAC of each permanent neighbour entry, by `<device> <address>`. */
  neighbours: ReadonlyMap<string, string>
  /** Bytes a second that each device's root qdisc lets pass, by name; null when it does not limit. */
  rates: ReadonlyMap<string, number | null>
  /** Kernel parameters by name. */
  settings: ReadonlyMap<string, string>
  rules: Listing
}

/** Kernel parameters of a namespace with these taps that are looked at, as `name=value`. */
export function wantedSettings(taps: readonly string[]): string[] {
  return [
    ...namespaceSettings,
    `net.ipv4.conf.${uplinkInside}.proxy_arp=0`,
    ...taps.flatMap((tap) => [`net.ipv4.conf.${tap}.proxy_arp=1`, `net.ipv4.neigh.${tap}.proxy_delay=0`]),
  ]
}

/** What ip(8) is asked for, in one process. */
const questions = ['addr show', 'route show', 'neigh show nud permanent']

/** Look at a namespace: four commands, whatever the number of its cards. */
export async function observeNamespace(
  namespace: string,
  taps: readonly string[],
  options: Abortable,
): Promise<SeenNamespace> {
  const ip = ['ip', '-netns', namespace, '-json', '-batch', '-']
  const [answers, qdiscs, settings, rules] = await together(
    runCommand(ip, { ...options, input: `${questions.join('\n')}\n` }),
    runCommand(['tc', '-netns', namespace, '-json', 'qdisc', 'show'], options),
    readSettings(inNamespace(namespace), wantedSettings(taps).map(settingName), options),
    readListing(inNamespace(namespace), 'vpc', options),
  )
  return {
    ...parseAnswers(answers.stdout),
    rates: parseRates(qdiscs.stdout),
    settings,
    rules,
  }
}

/** The lists that `ip -json -batch` prints, one a line, told apart by what is in them: an empty one may not be there. Pure. */
export function parseAnswers(output: string): Pick<SeenNamespace, 'links' | 'routes' | 'neighbours'> {
  const entries = output.split('\n').flatMap(parseJsonList)
  const links = entries.filter((entry) => 'ifname' in entry)
  const neighbours = entries.filter((entry) => 'lladdr' in entry)
  const routes = entries.filter((entry) => !('ifname' in entry || 'lladdr' in entry))
  return {
    links: linksOf(links),
    routes: routesOf(routes),
    neighbours: new Map(neighbours.map(({ dev, dst, lladdr }) => [`${dev} ${dst}`, String(lladdr)])),
  }
}

export function settingName(setting: string): string {
  return setting.slice(0, setting.indexOf('='))
}

/** Values of kernel parameters; those that there are not are left out. */
export async function readSettings(
  enter: readonly string[],
  names: readonly string[],
  options: Abortable,
): Promise<Map<string, string>> {
  const { stdout } = await runCommand([...enter, 'sysctl', '-e', ...names], options)
  return new Map(
    stdout.split('\n').flatMap((line): [string, string][] => {
      const [name, value] = line.split(' = ')
      return name === undefined || value === undefined ? [] : [[name, value]]
    }),
  )
}

/** Links as `ip -json addr show` lists them. Pure. */
export function parseLinks(json: string): Map<string, SeenLink> {
  return linksOf(parseJsonList(json))
}

function linksOf(entries: readonly Entry[]): Map<string, SeenLink> {
  return new Map(
    entries.map(({ ifname, flags, mtu, address, addr_info: info }) => {
      const words = Array.isArray(flags) ? flags : []
      const up = words.includes('UP')
      const addresses = (Array.isArray(info) ? info : []).filter(({ family }) => family === 'inet')
      const link: SeenLink = {
        up,
        open: !up || words.includes('LOWER_UP'),
        mtu: Number(mtu),
        mac: String(address),
        addresses: addresses.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
      }
      return [String(ifname), link]
    }),
  )
}

/** Routes as `ip -json route show` lists them. Pure. */
export function parseRoutes(json: string): SeenRoute[] {
  return routesOf(parseJsonList(json))
}

function routesOf(entries: readonly Entry[]): SeenRoute[] {
  return entries.map(({ type, dst, dev, gateway }) => ({
    type: String(type ?? 'unicast'),
    dst: String(dst),
    dev: String(dev ?? ''),
    gateway: String(gateway ?? ''),
  }))
}

/** Rates as `tc -json qdisc show` lists them. Pure. */
export function parseRates(json: string): Map<string, number | null> {
  const roots = parseJsonList(json).filter(({ root }) => root === true)
  return new Map(
    roots.map(({ dev, kind, options }) => {
      const rate: unknown = kind === 'tbf' ? Reflect.get(Object(options), 'rate') : null
      return [String(dev), typeof rate === 'number' ? rate : null]
    }),
  )
}

type Entry = Record<string, unknown>

/** The objects of a JSON list of ip(8) or tc(8), which print nothing at all for an empty one. Pure. */
export function parseJsonList(json: string): Entry[] {
  const list: unknown = JSON.parse(json.trim() === '' ? '[]' : json)
  return Array.isArray(list) ? list.filter((entry) => typeof entry === 'object' && entry !== null) : []
}
