import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand } from '@berth/agent/sys/run-command.ts'

/** Have the host that `tools/on-host.ts` makes know these name servers. Gives what takes them away again. */
export async function useNameServers(...addresses: readonly string[]): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-'))
  const file = join(directory, 'resolv.conf')
  await writeFile(file, addresses.map((address) => `nameserver ${address}\n`).join(''))
  await runCommand(['mount', '--bind', file, '/etc/resolv.conf'])
  return async () => {
    await runCommand(['umount', '/etc/resolv.conf'])
    await rm(directory, { recursive: true })
  }
}
