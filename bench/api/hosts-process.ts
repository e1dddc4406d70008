import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startAgent } from '@berth/agent/main.ts'
import { SimulatedHost } from '@berth/agent/simulated/host.ts'
import type { HostCredential } from '@berth/server/config.ts'
import { pino } from 'pino'
import { serveParent } from './child.ts'

export interface HostsArgument {
  serverUrl: string
  hosts: readonly HostCredential[]
  /** Folder of the ledgers; in memory unless given. */
  ledgers?: string
}

/**
 * Agents on simulated hosts. Many of them stand for other machines, so their ledgers are kept in memory: the disk that is
 * measured is the server's. One alone stands for this machine, as in `berth dev`, and has its ledger on the disk.
 */
await serveParent<HostsArgument>(async ({ serverUrl, hosts, ledgers }) => {
  const directory = mkdtempSync(ledgers === undefined ? '/dev/shm/berth-bench-' : join(ledgers, 'ledgers-'))
  const log = pino({ level: 'error' }, pino.destination({ dest: 2, sync: true }))
  const agents = hosts.map(({ hostId, credential }) =>
    startAgent({ ledgerFile: join(directory, `${hostId}.db`), serverUrl, credential }, new SimulatedHost(), log),
  )
  return {
    ready: {},
    answers: {},
    async stop() {
      await Promise.all(agents.map((agent) => agent.stop()))
      await rm(directory, { recursive: true, force: true })
    },
  }
})
