import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { removeNamespace } from '@berth/agent/network/namespace.ts'
import { removeDnsmasq } from '@berth/agent/network/services/dnsmasq.ts'
import { namespacePrefix } from '@berth/contract/hosts/names.ts'

/** Remove what an installation has on this machine besides its data directory, once it has no instance. */
export async function removeRuntime(installation: string, runtimeDirectory: string): Promise<void> {
  const prefix = namespacePrefix(installation)
  for (const name of await readdir('/run/netns').catch(() => [])) {
    if (!name.startsWith(prefix)) continue
    await removeDnsmasq(join(runtimeDirectory, name))
    await removeNamespace(name)
  }
  await rm(runtimeDirectory, { recursive: true, force: true })
}
