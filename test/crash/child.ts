import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** Bytes of a child's standard error that are kept. */
const keptErrors = 32 * 1024

/** A Node process of the program under test. It can be killed and started again. */
export class Child {
  readonly #argv: readonly string[]
  readonly #errorFile: string | null
  #process: ChildProcess | null = null
  #errors = ''
  /** Lines on standard error that say `"level":50`, since the first start. */
  errorLines = 0

  /** With `errorFile` its standard error goes into that file and is not kept here. */
  constructor(argv: readonly string[], errorFile: string | null = null) {
    this.#argv = argv
    this.#errorFile = errorFile
  }

  get running(): boolean {
    return this.#process !== null && this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** The process id; throws when it does not run. */
  get pid(): number {
    const pid = this.#process?.pid
    if (pid === undefined || !this.running) throw new Error(`not running: ${this.#argv.join(' ')}`)
    return pid
  }

  /** The end of what it wrote to standard error. */
  get errors(): string {
    return this.#errors
  }

  start(): void {
    if (this.running) throw new Error(`runs already: ${this.#argv.join(' ')}`)
    const errorFile = this.#errorFile === null ? null : openSync(this.#errorFile, 'a')
    const child = spawn(process.execPath, this.#argv, { stdio: ['ignore', 'pipe', errorFile ?? 'pipe'] })
    if (errorFile !== null) closeSync(errorFile)
    child.stdout?.resume()
    if (child.stderr !== null) {
      createInterface(child.stderr).on('line', (line) => {
        this.#errors = `${this.#errors}${line}\n`.slice(-keptErrors)
        if (line.includes('"level":50')) this.errorLines++
      })
    }
    this.#process = child
  }

  /** End it with a signal and wait until it is gone; gives its exit code, null when the signal ended it. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
    const child = this.#process
    if (child === null || !this.running) return child?.exitCode ?? null
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
    return child.exitCode
  }

  /** Send SIGUSR2 and give the next line of its standard output. */
  async ask(): Promise<string> {
    const child = this.#process
    if (child === null || child.stdout === null) throw new Error('not running')
    const lines = createInterface(child.stdout)
    const line = once(lines, 'line')
    child.kill('SIGUSR2')
    const [text] = await line
    lines.close()
    return String(text)
  }
}
