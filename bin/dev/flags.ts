import type { AgentSettings } from '@berth/agent/config.ts'
import type { PublicPoolConfig } from '@berth/server/config.ts'

/** What the flags of `berth dev` say. */
export interface DevFlags {
  listen: { host: string; port: number }
  dataDir: string
  hypervisor: 'qemu' | 'simulated'
  database?: string
  imageCatalogue?: string
  allowPrivateImageSources: boolean
  publicPool?: PublicPoolConfig[]
  publicInterface?: string
  stepDeadlines?: AgentSettings['deadlinesMs']
  logLevel: string
  down: boolean
  purge: boolean
}
