import { readdir, readFile } from 'node:fs/promises'
import type { HostOrphan } from '@berth/contract/hosts/agent-protocol.ts'

/** What an agent knows to be on its host; whatever else there is of its installation is an orphan. */
export interface KnownObjects {
  instances: ReadonlySet<string>
  vpcs: ReadonlySet<string>
}

/**
 * What is known now or was when this was called. It explains all that is seen in between: a record is there before
 * anything is made for it, and until all of it is gone.
 */
export function knownSince(known: () => KnownObjects): () => KnownObjects {
  const before = known()
  return () => {
    const now = known()
    return { instances: before.instances.union(now.instances), vpcs: before.vpcs.union(now.vpcs) }
  }
}

/** Processes of VMMs and dnsmasq by their names on the command line, and which part of the runtime directory they use. */
export async function runtimeProcesses(
  runtimeDirectory: string,
): Promise<{ pid: number; program: string; of: string }[]> {
  const found: { pid: number; program: string; of: string }[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const argv = (await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')).split('\0')
    const program = argv[0]?.split('/').at(-1) ?? ''
    if (!/^(?:qemu-system-|dnsmasq$)/.test(program)) continue
    const path = argv.find((argument) => argument.includes(`${runtimeDirectory}/`))
    const of = path?.slice(path.indexOf(`${runtimeDirectory}/`) + runtimeDirectory.length + 1).split('/')[0]
    if (of !== undefined && of !== '') found.push({ pid: Number(entry), program, of })
  }
  return found
}

/** Names in a directory; none when it is not there. */
export function entriesOf(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => [])
}

/** What of a list of names nothing explains. */
export function unexplained(
  kind: HostOrphan['kind'],
  names: readonly string[],
  known: (name: string) => boolean,
  detail: string,
): HostOrphan[] {
  return names.filter((name) => !known(name)).map((name) => ({ kind, name, detail }))
}
