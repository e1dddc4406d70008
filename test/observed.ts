import type { ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'

/** What a host says of an instance that runs under its first intent, but for what a test changes. */
export function observedRunning(id: string, changes: Partial<ObservedInstance> = {}): ObservedInstance {
  return {
    id: id as ObservedInstance['id'],
    generation: 1,
    seen_generation: 1,
    power: 'running',
    off_cause: '',
    reboots: 0,
    restarts: 0,
    started_at: 1_700_000_000_000,
    conditions: {},
    timeline: {},
    steps: [],
    failure: null,
    network: { netns: '', interface: '' },
    ...changes,
  }
}
