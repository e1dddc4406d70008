import { access, mkdir, readlink, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { type Abortable, CommandError, runCommand } from '../sys/run-command.ts'
import { isPlanned, type RulesetNames } from './ruleset/text.ts'

/** Where the names of namespaces are. */
export const namespaceDirectory = '/run/netns'

/**
 * Kernel parameters of every VPC's namespace; `default` is what a new device starts with. A new namespace has some of its
 * host's, so also those are set that are the kernel's own defaults.
 */
export const namespaceSettings = [
  'net.ipv4.ip_forward=1',
  'net.ipv4.conf.default.proxy_arp=1',
  ...inAll('rp_filter=1', 'send_redirects=0', 'accept_redirects=0', 'accept_source_route=0', 'route_localnet=0'),
  ...inAll('arp_ignore=0', 'arp_filter=0'), // others would leave questions for the gateway's address unanswered
  'net.ipv6.conf.default.disable_ipv6=1',
  'net.ipv6.conf.all.disable_ipv6=1',
]

function inAll(...settings: readonly string[]): string[] {
  return settings.flatMap((setting) => [`net.ipv4.conf.default.${setting}`, `net.ipv4.conf.all.${setting}`])
}

/** Type of the file system that namespaces are files of (NSFS_MAGIC, linux/magic.h). */
const nsfsMagic = 0x6e736673

/** Where the kernel's handle of a named namespace lies. */
export function namespacePath(name: string): string {
  return join(namespaceDirectory, name)
}

/** Start of an argv that runs in a namespace; unlike `ip netns exec` it leaves /sys alone. */
export function inNamespace(name: string): string[] {
  return ['nsenter', `--net=${namespacePath(name)}`, '--']
}

async function namespaceExists(name: string): Promise<boolean> {
  return access(namespacePath(name)).then(
    () => true,
    () => false,
  )
}

/**
 * Have a namespace for a VPC: forwarding between taps with proxy ARP, no IPv6, nothing in it yet. Idempotent; one that
 * was left half made is finished. Tells whether it was made, and so is empty.
 */
export async function ensureNamespace(name: string, options: Abortable = {}): Promise<boolean> {
  const missing = !(await isNamespace(name))
  if (missing) {
    await removeNamespace(name, options) // a name that was made but not yet bound to a namespace
    await mkdir(namespaceDirectory, { recursive: true })
    await runCommand(['ip', 'netns', 'add', name], options)
  }
  await setSysctls(name, namespaceSettings, options) // before any tap
  return missing
}

/**
 * Give a namespace that processes still live in its name back. Throws when it is the namespace we are in, which no
 * process of a VPC should be in.
 */
export async function nameNamespace(name: string, pid: number, options: Abortable = {}): Promise<void> {
  const [own, theirs] = await Promise.all([readlink('/proc/self/ns/net'), readlink(`/proc/${pid}/ns/net`)])
  if (own === theirs) throw new Error(`process ${pid} is not in the namespace of a VPC`)
  await removeNamespace(name, options) // a name that is bound to nothing
  await mkdir(namespaceDirectory, { recursive: true })
  await runCommand(['ip', 'netns', 'attach', name, String(pid)], options)
}

/** Whether a process is in the namespace with this name. */
export async function isInside(name: string, pid: number): Promise<boolean> {
  const [link, file] = await Promise.all([
    readlink(`/proc/${pid}/ns/net`).catch(() => ''),
    stat(namespacePath(name)).catch(() => null),
  ])
  return file !== null && link === `net:[${file.ino}]`
}

/** Set kernel parameters of a namespace, each as `name=value`. */
export async function setSysctls(name: string, settings: readonly string[], options: Abortable = {}): Promise<void> {
  await runCommand([...inNamespace(name), 'sysctl', '-q', '-w', ...settings], options)
}

/** Whether a namespace has this name. `ip netns add` makes a plain file first and binds the namespace to it then. */
export async function isNamespace(name: string): Promise<boolean> {
  return statfs(namespacePath(name)).then(
    ({ type }) => type === nsfsMagic,
    () => false,
  )
}

/** Remove a namespace; nothing may run in it any more, or its devices would live on unseen. */
export async function removeNamespace(name: string, options: Abortable = {}): Promise<void> {
  if (await namespaceExists(name)) await runCommand(['ip', 'netns', 'del', name], options)
}

/** Run ip(8) commands in a namespace, in one process. Stops at the first that fails. */
export async function ipBatch(namespace: string, lines: readonly string[], options: Abortable = {}): Promise<void> {
  await runCommand(['ip', '-netns', namespace, '-batch', '-'], { ...options, input: `${lines.join('\n')}\n` })
}

/** Names of the links of a namespace. */
export async function listLinks(namespace: string, options: Abortable = {}): Promise<string[]> {
  const { stdout } = await runCommand(['ip', '-netns', namespace, '-json', 'link', 'show'], options)
  return namesOf(stdout, 'ifname')
}

/**
 * Whether a namespace has a link of this name. Asks for that one alone: a list of hundreds takes longer than all else that
 * a new one needs. A list that could not be had is taken for none, so it is no answer to whether a link is gone.
 */
export async function linkExists(namespace: string, link: string, options: Abortable = {}): Promise<boolean> {
  return runCommand(['ip', '-netns', namespace, 'link', 'show', 'dev', link], options).then(
    () => true,
    (error) => {
      if (error instanceof CommandError && error.exitCode === 1) return false // also for a device that is not there
      throw error
    },
  )
}

/** The names in a JSON list that ip(8) or nft(8) printed, which is empty text for no entry. */
function namesOf(json: string, field: string): string[] {
  const entries: unknown = JSON.parse(json === '' ? '[]' : json)
  return Array.isArray(entries) ? entries.map((entry: unknown) => String(Reflect.get(Object(entry), field))) : []
}

/** Chains and sets of the table that holds a VPC's rules; empty when there is none. */
export async function listRuleNames(namespace: string, options: Abortable = {}): Promise<RulesetNames> {
  const argv = [...inNamespace(namespace), 'nft', '--json', '--terse', 'list', 'ruleset', 'inet']
  const { stdout } = await runCommand(argv, options)
  const { nftables } = JSON.parse(stdout) as { nftables: Record<string, { table?: string; name?: string }>[] }
  const named = (kind: string) =>
    nftables.flatMap(({ [kind]: object }) =>
      object?.table === 'vpc' && object.name !== undefined ? [object.name] : [],
    )
  return { chains: new Set(named('chain').filter(isPlanned)), sets: new Set(named('set').filter(isPlanned)) }
}

/** Load a ruleset as one transaction. */
export async function loadRuleset(namespace: string, ruleset: string, options: Abortable = {}): Promise<void> {
  await runCommand([...inNamespace(namespace), 'nft', '-f', '-'], { ...options, input: ruleset })
}

/** Have the kernel look at a ruleset as it would when it loads it. Throws CommandError when it refuses it. */
export async function checkRuleset(namespace: string, ruleset: string, options: Abortable = {}): Promise<void> {
  await runCommand([...inNamespace(namespace), 'nft', '--check', '-f', '-'], { ...options, input: ruleset })
}
