import type { OutputFlags } from '../output/output.ts'

/** The flags of `berth apply`. */
export interface ApplyFlags extends OutputFlags {
  file: string[]
  dryRun?: true
  prune?: true
  selector?: string
  wait: 'running' | 'ready' | 'none' | false
  timeout: number
}
