import type { StepName } from '@berth/contract/operation-kinds.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import type { CliIo } from '../io.ts'
import { formatMib, formatSeconds } from './table.ts'
import { printableLine } from './terminal-text.ts'

/** A step as it is shown. */
export interface StepView {
  label: string
  state: 'pending' | 'running' | 'done' | 'failed'
  /** Milliseconds it took; null while that is not known. */
  tookMs: number | null
  detail: string
  /** Changes when a running step has news worth a line of a log. */
  news: string
}

const labels: Record<StepName, string> = {
  schedule: 'scheduled',
  image: 'image',
  disk: 'disk',
  network: 'network',
  shutdown: 'shutdown',
  boot: 'booted',
  'clean-up': 'clean-up',
}

/** A log gets a line for each of these while an image is downloaded, bytes. */
const newsEveryBytes = 100 * 1024 ** 2

/** What is known when progress is shown; `image` only while it is being downloaded. */
export interface Progress {
  operation: Schemas['Operation']
  instance: Schemas['Instance']
  image: Schemas['Image'] | null
  /** Whether the guest's own word is waited for, after the operation. */
  untilReady: boolean
}

/** The steps of an operation, and of the guest's boot after it, as they are shown. Pure. */
export function stepViews(progress: Progress): StepView[] {
  const { operation, untilReady } = progress
  const current =
    operation.finished_at === null ? operation.steps.find((step) => step.status !== 'succeeded') : undefined
  const views = operation.steps.map((step): StepView => {
    const state = stateOf(step, step === current)
    const detail = detailOf(progress, step, state)
    return { label: labels[step.name], state, tookMs: between(step.started_at, step.finished_at), ...detail }
  })
  return untilReady ? [...views, readyView(progress)] : views
}

function stateOf(step: Schemas['OperationStep'], isCurrent: boolean): StepView['state'] {
  switch (step.status) {
    case 'succeeded':
      return 'done'
    case 'failed':
      return 'failed'
    case 'running':
      return 'running'
    default:
      return isCurrent ? 'running' : 'pending'
  }
}

function detailOf({ instance, image }: Progress, step: Schemas['OperationStep'], state: StepView['state']) {
  const plain = (detail: string) => ({ detail, news: detail })
  // the message follows in the error the command ends with
  if (state === 'failed') return plain(step.error?.code ?? '')
  if (state === 'done') {
    if (step.name === 'schedule') return plain(instance.status.host_id)
    return plain(step.name === 'network' ? instance.status.private_ip : '')
  }
  if (state === 'pending') return plain('')
  if (step.error !== null) return plain(`attempt ${step.attempt}, after: ${step.error.message}`)
  if (step.name === 'schedule') {
    return plain(instance.status.conditions.find(({ type }) => type === 'Scheduled')?.message ?? '')
  }
  if (step.name === 'image' && image?.status.state === 'downloading') {
    const { received_bytes: received } = image.status
    return {
      detail: `downloading ${image.id}: ${formatMib(received) || '0.0 MiB'}`,
      news: `downloading ${Math.floor(received / newsEveryBytes)}`,
    }
  }
  return plain('')
}

function readyView({ operation, instance }: Progress): StepView {
  const view = { label: 'ready', tookMs: null, detail: '', news: '' }
  // until the operation has ended the condition may be that of the boot before
  if (operation.status !== 'succeeded') return { ...view, state: 'pending' }
  const { conditions, boot_timeline: timeline } = instance.status
  const guest = conditions.find(({ type }) => type === 'GuestReady')
  const tookMs = between(timeline.vmm_started_at, timeline.guest_ready_at)
  if (guest?.status === 'true') return { ...view, state: 'done', tookMs }
  if (guest?.status === 'false') return { ...view, state: 'failed', tookMs, detail: guest.reason, news: guest.reason }
  return { ...view, state: 'running' }
}

function between(from: string | null, to: string | null): number | null {
  const ms = Date.parse(to ?? '') - Date.parse(from ?? '')
  return Number.isNaN(ms) ? null : Math.max(0, ms)
}

const stateWords = { pending: '', running: '…', done: '', failed: 'FAILED' } as const

/** One line of the display, without the line's end. Pure. */
export function renderStep(view: StepView, elapsedMs: number | null): string {
  const time = view.state === 'pending' || elapsedMs === null ? '' : formatSeconds(elapsedMs)
  const words = [stateWords[view.state], printableLine(view.detail)].filter((word) => word !== '').join(' ')
  return `  ${view.label.padEnd(9)} ${time.padStart(8)}  ${words}`.trimEnd()
}

/**
 * Shows steps on standard error: on a terminal all of them, drawn anew in place; elsewhere a line for each as it ends
 * or has news.
 */
export class ProgressDisplay {
  readonly #io: CliIo
  readonly #runningSince = new Map<string, number>()
  readonly #told = new Map<string, string>()
  #drawnLines = 0

  constructor(io: CliIo) {
    this.#io = io
  }

  /** Show how far it is. */
  update(views: readonly StepView[]): void {
    const timed = views.map((view) => ({ view, elapsedMs: this.#elapsed(view) }))
    const { stderr } = this.#io
    if (!stderr.isTTY) {
      for (const { view, elapsedMs } of timed) if (this.#isNews(view)) stderr.write(`${renderStep(view, elapsedMs)}\n`)
      return
    }
    const up = this.#drawnLines === 0 ? '' : `\u001b[${this.#drawnLines}A`
    // a line that wraps would make the next drawing start at the wrong place
    const lines = timed.map(({ view, elapsedMs }) => renderStep(view, elapsedMs).slice(0, stderr.columns - 1))
    stderr.write(`${up}${lines.map((line) => `${line}\u001b[K\n`).join('')}`)
    this.#drawnLines = lines.length
  }

  /** A line between the steps and what comes; the next update starts below it. */
  note(text: string): void {
    this.#io.stderr.write(`${printableLine(text)}\n`)
    this.#drawnLines = 0
  }

  /** This machine's clock may not be the server's, so a running step is timed from when it was first seen. */
  #elapsed(view: StepView): number | null {
    if (view.state !== 'running') return view.tookMs
    const since = this.#runningSince.get(view.label) ?? this.#io.now()
    this.#runningSince.set(view.label, since)
    return this.#io.now() - since
  }

  #isNews(view: StepView): boolean {
    if (view.state === 'pending' || (view.state === 'running' && view.news === '')) return false
    const news = `${view.state} ${view.news}`
    if (this.#told.get(view.label) === news) return false
    this.#told.set(view.label, news)
    return true
  }
}
