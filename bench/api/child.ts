import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** How long a child may take for anything it is asked, milliseconds. */
const answerTimeoutMs = 180_000

/** A process of the benchmark that was started with an argument and answers questions one at a time. */
export class Child {
  readonly #process: ChildProcess

  private constructor(process: ChildProcess) {
    this.#process = process
  }

  /** Start `bench/api/<name>.ts`; resolves with its first message. */
  static async start<Ready>(name: string, argument: object): Promise<{ child: Child; ready: Ready }> {
    const process = fork(join(import.meta.dirname, `${name}.ts`), [JSON.stringify(argument)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const child = new Child(process)
    return { child, ready: (await child.#next()) as Ready }
  }

  get pid(): number {
    const { pid } = this.#process
    if (pid === undefined) throw new Error('the process has not been started')
    return pid
  }

  /** Ask and give the answer. */
  async ask<Answer>(question: string, argument: object = {}): Promise<Answer> {
    const answer = this.#next()
    this.#process.send({ question, argument })
    return (await answer) as Answer
  }

  /** Processor time it has used until now, milliseconds. */
  processorMs(): Promise<number> {
    return this.ask<number>('processorMs')
  }

  /** End it in good order; after a while by force. */
  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const gone = once(this.#process, 'exit')
    this.#process.disconnect()
    const force = setTimeout(() => this.#process.kill('SIGKILL'), 20_000)
    await gone
    clearTimeout(force)
  }

  async #next(): Promise<unknown> {
    const ended = new AbortController()
    const exit = once(this.#process, 'exit', { signal: ended.signal }).then(([code]) => {
      throw new Error(`a process of the benchmark ended with ${code}`)
    })
    try {
      const signal = AbortSignal.any([ended.signal, AbortSignal.timeout(answerTimeoutMs)])
      const [message] = await Promise.race([once(this.#process, 'message', { signal }), exit])
      return message
    } finally {
      exit.catch(() => undefined)
      ended.abort()
    }
  }
}

/** What a child does with its argument: `ready` is its first message, `answers` are for `Child.ask`. */
export interface ChildWork {
  ready: object
  answers: Record<string, (argument: never) => Promise<object>>
  stop: () => Promise<void>
}

/** Be a child: start, say so, answer until the parent has gone, stop. */
export async function serveParent<Argument>(start: (argument: Argument) => Promise<ChildWork>): Promise<void> {
  const work = await start(JSON.parse(process.argv[2] ?? '{}') as Argument)
  process.on('message', async ({ question, argument }: { question: string; argument: never }) => {
    if (question === 'processorMs') {
      const { user, system } = process.cpuUsage()
      process.send?.((user + system) / 1000)
      return
    }
    const answer = work.answers[question]
    if (answer === undefined) throw new Error(`nobody answers ${question}`)
    process.send?.(await answer(argument))
  })
  process.once('disconnect', async () => {
    await work.stop()
    process.exit(0)
  })
  process.send?.(work.ready)
}
