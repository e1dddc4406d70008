import { Session } from 'node:inspector/promises'

/** Where the processor time of this process went: milliseconds by function, the longest first. */
export interface ProfileReport {
  totalMs: number
  functions: { where: string; ms: number }[]
  /** By package, or by file of ours. */
  parts: { where: string; ms: number }[]
}

/** The sampling profiler of this process (https://chromedevtools.github.io/devtools-protocol/v8/Profiler/). */
export class Profile {
  readonly #session = new Session()

  async start() {
    this.#session.connect()
    await this.#session.post('Profiler.enable')
    await this.#session.post('Profiler.setSamplingInterval', { interval: 500 })
    await this.#session.post('Profiler.start')
    return {}
  }

  async stop(): Promise<ProfileReport> {
    const { profile } = await this.#session.post('Profiler.stop')
    this.#session.disconnect()
    const frames = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
    const byFunction = new Map<string, number>()
    const byPart = new Map<string, number>()
    let totalMs = 0
    profile.samples?.forEach((id, index) => {
      const frame = frames.get(id)
      const ms = (profile.timeDeltas?.[index] ?? 0) / 1000
      if (frame === undefined || frame.functionName === '(idle)') return
      totalMs += ms
      const file = frame.url.split('/').slice(-2).join('/')
      const where = `${frame.functionName || '(anonymous)'} ${file}${file === '' ? '' : `:${frame.lineNumber + 1}`}`
      byFunction.set(where, (byFunction.get(where) ?? 0) + ms)
      const part =
        /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(frame.url)?.[1] ?? (file || `(native) ${frame.functionName}`)
      byPart.set(part, (byPart.get(part) ?? 0) + ms)
    })
    return { totalMs, functions: longest(byFunction, 30), parts: longest(byPart, 20) }
  }
}

function longest(times: ReadonlyMap<string, number>, count: number) {
  return [...times]
    .map(([where, ms]) => ({ where, ms }))
    .sort((a, b) => b.ms - a.ms)
    .slice(0, count)
}
