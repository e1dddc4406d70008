import { HostError } from '@berth/agent/host-driver.ts'
import type { FaultPoint } from '@berth/agent/simulated/host.ts'
import type { ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import fc from 'fast-check'
import { type Call, perform } from './calls.ts'
import { claimForeign } from './foreign-claim.ts'
import { generationOf } from './mortal-host.ts'
import { changes, type Match } from './patches.ts'
import type { AnswerFate, ReportFate } from './wire.ts'
import type { World } from './world.ts'

/** When the server crashes over calls: before anything is stored, behind a commit and before its answers, or at an answer. */
export type CrashMoment = 'none' | 'before' | 'first commit' | 'second commit' | 'first answer'

/** One step of a schedule. Plain data, and possible in every situation: so it shrinks and replays. */
export type Command =
  | { do: 'run'; ms: number }
  | { do: 'call'; calls: Call[]; crash: CrashMoment }
  | { do: 'crash server'; downMs: number }
  | { do: 'crash agent'; host: 0 | 1; saves: number | null; downMs: number }
  | { do: 'restart host'; host: 0 | 1; downMs: number }
  | { do: 'reports'; host: 0 | 1; fates: ReportFate[] }
  | { do: 'answers'; host: 0 | 1; fates: AnswerFate[] }
  | { do: 'cut'; host: 0 | 1; ms: number }
  | { do: 'jump'; clock: 'server' | 0 | 1; ms: number }
  | { do: 'guest off' | 'kill vmm' | 'deafen guest'; pick: number }
  | { do: 'fail'; host: 0 | 1; point: FaultPoint; times: number; tryAgain: boolean }
  | { do: 'hang'; host: 0 | 1; point: FaultPoint; ms: number }
  | { do: 'lose wakes'; count: number }
  | { do: 'claim'; pick: number; power: ObservedInstance['power']; failed: boolean }

const host = fc.constantFrom<(0 | 1)[]>(0, 1)
const pick = fc.nat(3)
const point = fc.constantFrom<FaultPoint[]>('image', 'disk', 'network', 'start')
const downMs = fc.constantFrom(5, 200, 3000, 20_000)
const graceSeconds = fc.constantFrom(0, 1, 5, 20)

const lost = fc.constantFrom(false, false, false, false, false, true)
const delivery = { keyed: fc.boolean(), lost }

const call: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      call: fc.constant('create' as const),
      type: fc.constantFrom(...(['micro', 'micro', 'micro', 'cx11', 'cx51'] as const)),
      subnet: fc.constantFrom(...(['small', 'default'] as const)),
      ...delivery,
    }),
  },
  { weight: 3, arbitrary: fc.record({ call: fc.constant('start' as const), pick, ...delivery }) },
  {
    weight: 4,
    arbitrary: fc.record({
      call: fc.constantFrom(...(['stop', 'reboot'] as const)),
      pick,
      grace: graceSeconds,
      ...delivery,
    }),
  },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('delete' as const), pick, grace: graceSeconds }) },
  {
    weight: 4,
    arbitrary: fc.record({
      call: fc.constant('again' as const),
      pick,
      otherBody: fc.constantFrom(false, false, true),
      lost,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      call: fc.constant('patch' as const),
      pick,
      change: fc.constantFrom(...changes),
      match: fc.constantFrom<Match[]>('current', 'first', 'none'),
      lost,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ call: fc.constant('allocate' as const), pick: fc.option(pick), lost }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ call: fc.constant('attach' as const), ip: fc.nat(5), pick: fc.option(pick), lost }),
  },
  { weight: 2, arbitrary: fc.record({ call: fc.constant('release' as const), ip: fc.nat(5), lost }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('get' as const), pick }) },
  {
    weight: 1,
    arbitrary: fc.record({
      call: fc.constant('wait' as const),
      pick,
      target: fc.constantFrom(...(['running', 'ready', 'stopped', 'terminated'] as const)),
    }),
  },
  { weight: 1, arbitrary: fc.constant<Call>({ call: 'list' }) },
)

/** The next step of a schedule. A new kind of step is added here, in `Command` and in `execute`. */
export const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('run' as const),
      ms: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constantFrom(200, 500, 1500, 6000)),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('call' as const),
      calls: fc.oneof(
        { weight: 3, arbitrary: fc.array(call, { minLength: 1, maxLength: 1 }) },
        { weight: 1, arbitrary: fc.array(call, { minLength: 2, maxLength: 3 }) },
      ),
      crash: fc.oneof(
        { weight: 9, arbitrary: fc.constant<CrashMoment>('none') },
        {
          weight: 1,
          arbitrary: fc.constantFrom<CrashMoment[]>('before', 'first commit', 'second commit', 'first answer'),
        },
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash server' as const), downMs }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('crash agent' as const),
      host,
      saves: fc.option(fc.nat(5)),
      downMs,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart host' as const), host, downMs }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('reports' as const),
      host,
      fates: fc.array(fc.constantFrom<ReportFate[]>('lost', 'answer_lost', 'doubled', 'late'), {
        minLength: 1,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('answers' as const),
      host,
      fates: fc.array(fc.constantFrom<AnswerFate[]>('lost', 'late'), { minLength: 1, maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cut' as const), host, ms: downMs }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('jump' as const),
      clock: fc.constantFrom<('server' | 0 | 1)[]>('server', 0, 1),
      ms: fc.constantFrom(
        -90_000_000,
        -3_600_000,
        -90_000,
        -1000,
        1000,
        45_000,
        130_000,
        3_600_000,
        86_400_000,
        90_000_000,
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom(...(['guest off', 'kill vmm', 'deafen guest'] as const)),
      pick,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('fail' as const),
      host,
      point,
      times: fc.integer({ min: 1, max: 3 }),
      tryAgain: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('hang' as const), host, point, ms: downMs }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('lose wakes' as const), count: fc.integer({ min: 1, max: 3 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('claim' as const),
      pick,
      power: fc.constantFrom<ObservedInstance['power'][]>('absent', 'running', 'off'),
      failed: fc.boolean(),
    }),
  },
)

/** Carry a step out. */
export async function execute(world: World, step: Command): Promise<void> {
  switch (step.do) {
    case 'run':
      return world.run(step.ms)
    case 'call':
      makeCalls(world, step.calls, step.crash)
      break
    case 'crash server':
      world.server.crash(step.downMs)
      break
    case 'crash agent':
      if (step.saves === null) world.hosts[step.host].kill(step.downMs)
      else world.hosts[step.host].killAtSave(step.saves, step.downMs)
      break
    case 'restart host':
      for (const id of world.hosts[step.host].machine.running()) noteEnd(world, id)
      world.hosts[step.host].restart(step.downMs)
      break
    case 'reports':
      world.hosts[step.host].wire.reportFates.push(...step.fates)
      break
    case 'answers':
      world.hosts[step.host].wire.answerFates.push(...step.fates)
      break
    case 'cut':
      world.cut(step.host, step.ms)
      break
    case 'jump':
      ;(step.clock === 'server' ? world.serverClock : world.hosts[step.clock].clock).jump(step.ms)
      break
    case 'guest off':
    case 'kill vmm':
    case 'deafen guest':
      disturbGuest(world, step.pick, step.do)
      break
    case 'fail': {
      const { times, tryAgain } = step
      const errors = Array.from(
        { length: times },
        () => new HostError('injected', 'so it was', { retryable: true, tryAgain }),
      )
      world.hosts[step.host].machine.failNext(step.point, ...errors)
      world.promises.faults += times
      break
    }
    case 'hang':
      world.hosts[step.host].hang(step.point, step.ms)
      break
    case 'lose wakes':
      world.server.loseWakes(step.count)
      break
    case 'claim':
      await claimForeign(world, step)
      break
  }
  await world.settle()
}

/** Calls of several clients in one turn: they share a commit. */
function makeCalls(world: World, calls: readonly Call[], crash: CrashMoment): void {
  const downMs = 50
  if (crash === 'first commit') world.server.crashAtCommit(1, downMs)
  if (crash === 'second commit') world.server.crashAtCommit(2, downMs)
  if (crash === 'first answer') world.server.crashAtAnswer(downMs)
  for (const call of calls) void perform(world, call)
  if (crash === 'before') world.server.crash(downMs)
}

function disturbGuest(world: World, pick: number, what: 'guest off' | 'kill vmm' | 'deafen guest'): void {
  const running = world.hosts.flatMap(({ machine, kills }) =>
    machine.running().map((id) => ({ id, vmm: machine.vmmOf(id), kills })),
  )
  const { id = '', vmm = null, kills = 0 } = running[pick % running.length] ?? {}
  if (vmm === null) return
  const known = world.promises.instances.get(id)
  if (what === 'deafen guest') vmm.ignoresButton = true
  if (what === 'guest off') vmm.guestPowersOff()
  if (what === 'kill vmm') vmm.die()
  if (known === undefined || what === 'deafen guest') return
  known.ends++
  if (what === 'kill vmm') known.vmmDeaths++
  else known.guestOff = true
  known.offUnder = what === 'guest off' ? { generation: generationOf(vmm), kills } : null
}

function noteEnd(world: World, id: string): void {
  const known = world.promises.instances.get(id)
  if (known === undefined) return
  known.ends++
  known.offUnder = null
}
