import { chmod, mkdir, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DesiredNetwork } from '@berth/contract/hosts/agent-protocol.ts'
import { formatAddress, netmaskOf, networkOf } from '@berth/contract/networks/cidr.ts'
import { identifyProcess, killProcess, type ProcessIdentity, waitForExit } from '../../sys/process.ts'
import type { Abortable } from '../../sys/run-command.ts'
import { startDetached } from '../../sys/start-detached.ts'
import { nameServerUser, tapMtu } from '../names.ts'
import { inNamespace, isInside } from '../namespace.ts'
import type { Nic } from '../nic.ts'
import { findStaleLeases, leaseFile, releaseStaleLeases } from './leases.ts'
import { hostNameServers } from './name-servers.ts'

/**
 * Questions that a VPC may have at name servers that do not answer. A guest can keep some thousands so (`ruleset.ts` bounds
 * their rate, dnsmasq gives up after ten seconds); with dnsmasq's own 150 one guest could refuse names to all others.
 */
const mostPendingQuestions = 10_000

/** Bytes of a log above which it starts again: guests can have lines written to it. */
const longestLog = 1024 * 1024

/**
 * dnsmasq's configuration for a VPC (dnsmasq(8)): DHCP that hands each guest the address it has anyway, DNS of the
 * names inside the VPC; all others are asked of `nameServers`, or refused at once when there are none. Pure.
 */
export function renderDnsmasqConfig(
  directory: string,
  network: DesiredNetwork,
  nameServers: readonly string[],
): string {
  const ranges = network.subnets.flatMap((subnet, index) => {
    const range = networkOf(subnet.cidr)
    return [
      `dhcp-range=set:s${index},${formatAddress(range.first)},static,${netmaskOf(range)},1h`,
      `dhcp-option=tag:s${index},option:router,${subnet.gateway}`,
      `dhcp-option=tag:s${index},option:dns-server,${subnet.gateway}`,
    ]
  })
  return `${[
    'keep-in-foreground',
    `user=${nameServerUser.name}`,
    `pid-file=${join(directory, 'dnsmasq.pid')}`,
    'log-facility=-',
    'quiet-dhcp', // a guest could fill the log otherwise
    'no-hosts',
    'no-resolv',
    'no-poll',
    ...nameServers.map((address) => `server=${address}`),
    'domain-needed', // a bare name is one of the VPC's or nobody's
    'bogus-priv', // so are the names of private addresses
    'interface=vt*',
    'bind-dynamic',
    'domain=vpc.internal',
    'local=/vpc.internal/',
    'expand-hosts',
    `hostsdir=${join(directory, 'hosts.d')}`,
    `dhcp-hostsdir=${join(directory, 'dhcp.d')}`,
    `dhcp-leasefile=${leaseFile(directory)}`,
    'dhcp-authoritative',
    'dhcp-ignore-names', // names are what Berth says, not what a guest calls itself
    'no-ping',
    `dns-forward-max=${mostPendingQuestions}`,
    `dhcp-option=option:mtu,${tapMtu}`,
    ...ranges,
  ].join('\n')}\n`
}

/**
 * Have dnsmasq running for a VPC with this configuration and these guests. It survives the agent; one that runs with
 * another configuration is replaced. `directory` must be reachable for the user dnsmasq becomes. `changed` are those of
 * the guests whose files may say something else (see `updateGuests`).
 */
export async function ensureDnsmasq(
  namespace: string,
  directory: string,
  network: DesiredNetwork,
  { nics, changed }: { nics: readonly Nic[]; changed: readonly Nic[] },
  { signal }: Abortable,
): Promise<void> {
  await updateGuests(directory, nics, changed)
  const config = renderDnsmasqConfig(directory, network, await hostNameServers())
  const configFile = join(directory, 'dnsmasq.conf')
  const running = await findDnsmasq(directory)
  if (running === null || (await readFile(configFile, 'utf8').catch(() => '')) !== config) {
    signal?.throwIfAborted()
    if (running !== null) await stop(running)
    await writeFile(configFile, config, { mode: 0o644 })
    await launch(namespace, directory, configFile)
  }
}

/** Empty the log of a VPC's dnsmasq when it has grown long; it is written by appending. */
export async function shortenLog(directory: string): Promise<void> {
  const log = logFile(directory)
  const { size } = await stat(log).catch(() => ({ size: 0 }))
  if (size > longestLog) await truncate(log)
}

/**
 * What is otherwise with the dnsmasq of a VPC than `ensureDnsmasq` would have it, in words; empty when nothing is. `looked`
 * are those of the cards whose taps should be there.
 */
export async function dnsmasqFaults(
  namespace: string,
  directory: string,
  network: DesiredNetwork,
  { nics, looked }: { nics: readonly Nic[]; looked: readonly Nic[] },
): Promise<string[]> {
  const running = await findDnsmasq(directory)
  const config = await readFile(join(directory, 'dnsmasq.conf'), 'utf8').catch(() => '')
  const faults: string[] = []
  if (running === null) faults.push('it does not run')
  else if (!(await isInside(namespace, running.pid))) faults.push('it runs in another namespace')
  const wanted = renderDnsmasqConfig(directory, network, await hostNameServers())
  if (config !== wanted) faults.push('its configuration is another')
  for (const [folder, files] of guestFiles(nics)) {
    const names = await readdir(join(directory, folder)).catch((): string[] => [])
    const texts = await Promise.all(
      names.map((name) => readFile(join(directory, folder, name), 'utf8').catch(() => '')),
    )
    const same = names.length === files.size && names.every((name, i) => files.get(name) === texts[i])
    if (!same) faults.push(`its files in ${folder} are others`)
  }
  const [stale] = await findStaleLeases(directory, looked)
  if (stale !== undefined) faults.push(`it keeps ${stale.nic.ip} for ${stale.lease.mac}, which has it no more`)
  return faults
}

/** Have dnsmasq as it should be, also when it runs where it does not belong. */
export async function repairDnsmasq(
  namespace: string,
  directory: string,
  network: DesiredNetwork,
  { nics, looked }: { nics: readonly Nic[]; looked: readonly Nic[] },
  options: Abortable,
): Promise<void> {
  const running = await findDnsmasq(directory)
  if (running !== null && !(await isInside(namespace, running.pid))) await stop(running)
  await ensureDnsmasq(namespace, directory, network, { nics, changed: nics }, options)
  await releaseStaleLeases(namespace, directory, looked, options)
}

/**
 * Have exactly these guests known to the dnsmasq of a directory. Only the files of those that are among `changed` are
 * read; of the others one that is there is taken to be right.
 */
export async function updateGuests(directory: string, nics: readonly Nic[], changed: readonly Nic[]): Promise<void> {
  await makeDirectories(directory)
  if (!(await syncGuestFiles(directory, nics, changed))) return
  const running = await findDnsmasq(directory)
  if (running !== null) process.kill(running.pid, 'SIGHUP') // inotify tells it of new files, not of removed ones
}

/** Have the dnsmasq of a directory forget a guest; that of no other is looked at. Idempotent. */
export async function removeGuest(directory: string, tap: string): Promise<void> {
  for (const [folder] of guestFiles([])) await rm(join(directory, folder, tap), { force: true })
  const running = await findDnsmasq(directory)
  if (running !== null) process.kill(running.pid, 'SIGHUP') // inotify tells it of new files, not of removed ones
}

/** Stop dnsmasq of a VPC and remove its files. Idempotent. */
export async function removeDnsmasq(directory: string): Promise<void> {
  const running = await findDnsmasq(directory)
  if (running !== null) await stop(running)
  await rm(directory, { recursive: true, force: true })
}

function logFile(directory: string): string {
  return join(directory, 'dnsmasq.log')
}

async function makeDirectories(directory: string): Promise<void> {
  for (const each of [directory, join(directory, 'hosts.d'), join(directory, 'dhcp.d')]) {
    await mkdir(each, { recursive: true, mode: 0o755 })
    await chmod(each, 0o755) // whatever the umask: dnsmasq reads them as another user
  }
}

/** One file a guest in each directory, named by its tap; true when one had to go. */
async function syncGuestFiles(directory: string, nics: readonly Nic[], changed: readonly Nic[]): Promise<boolean> {
  const suspect = new Set(changed.map((nic) => nic.tap))
  let removed = false
  for (const [folder, wanted] of guestFiles(nics)) {
    const present = new Set(await readdir(join(directory, folder)))
    for (const name of present) {
      if (wanted.has(name)) continue
      await rm(join(directory, folder, name), { force: true })
      removed = true
    }
    for (const [name, text] of wanted) {
      if (present.has(name) && !suspect.has(name)) continue
      const file = join(directory, folder, name)
      if ((await readFile(file, 'utf8').catch(() => null)) !== text) await writeFile(file, text, { mode: 0o644 })
    }
  }
  return removed
}

/** What the files of the guests say, by folder and tap. */
function guestFiles(nics: readonly Nic[]): [folder: string, files: Map<string, string>][] {
  return [
    ['hosts.d', new Map(nics.map((nic) => [nic.tap, `${nic.ip} ${nic.hostname}\n`]))],
    // no name: dnsmasq would take one such as `ignore` or `2d` for a word of its own
    ['dhcp.d', new Map(nics.map((nic) => [nic.tap, `${nic.mac},${nic.ip}\n`]))],
  ]
}

async function launch(namespace: string, directory: string, configFile: string): Promise<void> {
  const log = await open(logFile(directory), 'a', 0o600)
  try {
    const argv = [...inNamespace(namespace), 'dnsmasq', `--conf-file=${configFile}`]
    const { pid, ended } = await startDetached(argv, { output: log.fd })
    const identity = await identifyProcess(pid)
    const failed = ended.then((how) =>
      Promise.reject(new Error(`dnsmasq ended with ${how}; see ${logFile(directory)}`)),
    )
    failed.catch(() => undefined)
    try {
      await Promise.race([waitForPidFile(directory), failed])
    } catch (error) {
      if (identity !== null) await killProcess(identity) // a late start would be nobody's
      throw error
    }
  } finally {
    await log.close()
  }
}

async function waitForPidFile(directory: string): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt++) {
    if ((await findDnsmasq(directory)) !== null) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error('dnsmasq did not start within 2 s')
}

/** The dnsmasq of a directory by its pid file, if that pid is still it. */
export async function findDnsmasq(directory: string): Promise<ProcessIdentity | null> {
  try {
    const pid = Number((await readFile(join(directory, 'dnsmasq.pid'), 'utf8')).trim())
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0')
    return argv.includes(`--conf-file=${join(directory, 'dnsmasq.conf')}`) ? await identifyProcess(pid) : null
  } catch {
    return null
  }
}

async function stop(running: ProcessIdentity): Promise<void> {
  process.kill(running.pid, 'SIGTERM')
  if (!(await waitForExit(running, 2000))) await killProcess(running)
}
