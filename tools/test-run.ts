import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'

/** One command of a run: a check counts as one test, `tests` is Vitest, whose report says how many it ran. */
export type Job = { argv: readonly string[]; env?: Record<string, string> } & ({ check: string } | { tests: string })

/** What is read of Vitest's JSON report; `message` is of a file that failed outside its tests. */
interface Report {
  numPassedTests: number
  numPendingTests: number
  testResults: {
    name: string
    status: string
    message: string
    startTime: number
    endTime: number
    assertionResults: { status: string; fullName: string; failureMessages: string[] }[]
  }[]
}

/** Lines of a failure that are said again at the end, and files whose times are. */
const messageLines = 40
const slowestShown = 10

/** Runs commands, part after part, counts what passed, and says at its end what took long and what failed. */
export class TestRun {
  readonly #root: string
  readonly #results = mkdtempSync(join(tmpdir(), 'berth-test-'))
  readonly #totals = { passed: 0, failed: 0, skipped: 0 }
  readonly #failures: string[] = []
  readonly #parts: [title: string, ms: number][] = []
  readonly #files: [name: string, ms: number][] = []
  #reports = 0

  /** Commands run in `root`. */
  constructor(root: string) {
    this.#root = root
  }

  /** Run jobs, so many side by side; then the output of each is printed when it has ended. */
  async part(title: string, lanes: number, jobs: readonly Job[]): Promise<void> {
    console.log(`\n== ${title}`)
    const startedAt = performance.now()
    const waiting = [...jobs]
    const lane = async () => {
      for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) await this.#job(job, lanes > 1)
    }
    await Promise.all(Array.from({ length: lanes }, lane))
    this.#parts.push([title, performance.now() - startedAt])
  }

  /** Print the times, what failed, and the totals; gives the exit code. */
  end(): number {
    rmSync(this.#results, { recursive: true, force: true })
    const slowest = this.#files.sort(([, a], [, b]) => b - a).slice(0, slowestShown)
    console.log(`\n== What it took, and the slowest files\n\n${[...this.#parts, ...slowest].map(timeLine).join('\n')}`)
    if (this.#failures.length > 0) console.log(`\n== What failed\n\n${this.#failures.join('\n\n')}`)
    const { passed, failed, skipped } = this.#totals
    console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
    return failed > 0 || passed === 0 ? 1 : 0
  }

  async #job(job: Job, buffered: boolean): Promise<void> {
    if ('tests' in job) return this.#vitest(job.tests, job, buffered)
    const { status, output } = await this.#command(job, true)
    console.log(`${status === 0 ? 'ok' : 'FAILED'}: ${job.check} (${commandLine(job.argv)})`)
    if (status === 0) {
      this.#totals.passed++
      return
    }
    console.log(output)
    this.#fail(job.check, output)
  }

  async #vitest(title: string, job: Job, buffered: boolean): Promise<void> {
    const report = join(this.#results, `${++this.#reports}.json`)
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
    const { status, output } = await this.#command({ ...job, argv: [...job.argv, ...reporters] }, buffered)
    if (buffered) console.log(output.trim())
    const before = this.#totals.failed
    this.#count(title, report)
    if (status !== 0 && this.#totals.failed === before) this.#fail(title, `it ended with ${status}, outside any test`)
  }

  #count(title: string, file: string): void {
    let report: Report
    try {
      report = JSON.parse(readFileSync(file, 'utf8'))
    } catch {
      this.#fail(title, 'it ended without a report')
      return
    }
    this.#totals.passed += report.numPassedTests
    this.#totals.skipped += report.numPendingTests
    for (const { name, status, message, startTime, endTime, assertionResults } of report.testResults) {
      const path = relative(this.#root, name)
      this.#files.push([path, endTime - startTime])
      const failed = assertionResults.filter((each) => each.status === 'failed')
      for (const each of failed) this.#fail(`${path} > ${each.fullName}`, each.failureMessages.join('\n'))
      if (status === 'failed' && failed.length === 0) this.#fail(path, message)
    }
  }

  /** Said again at the end, where one who reads only the end of a long log finds it. */
  #fail(title: string, message: string): void {
    this.#totals.failed++
    this.#failures.push(`FAILED: ${title}\n${message.split('\n').slice(0, messageLines).join('\n')}`)
  }

  #command({ argv, env }: Job, buffered: boolean): Promise<{ status: number | string | null; output: string }> {
    const [command = '', ...args] = argv
    const stdio = buffered ? 'pipe' : 'inherit'
    const child = spawn(command, args, {
      cwd: this.#root,
      stdio: ['ignore', stdio, stdio],
      env: { ...process.env, ...env },
    })
    const chunks: Buffer[] = []
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => chunks.push(chunk))
    return new Promise((resolve) => {
      child.once('error', (error) => resolve({ status: error.message, output: error.message }))
      child.once('close', (code, signal) =>
        resolve({ status: code ?? signal, output: Buffer.concat(chunks).toString() }),
      )
    })
  }
}

function commandLine([command = '', ...args]: readonly string[]): string {
  return [basename(command), ...args].join(' ')
}

function timeLine([what, ms]: [what: string, ms: number]): string {
  return `${(ms / 1000).toFixed(1).padStart(8)} s  ${what}`
}
