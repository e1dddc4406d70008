import { childEnvironment } from './child-environment.ts'
import { spawner } from './spawner.ts'

/** A process that outlives us. */
export interface DetachedProcess {
  pid: number
  /** How it ended, in words; null while it runs, as far as is known. */
  end(): string | null
  /** Resolves with the same when it ends. */
  ended: Promise<string>
}

export interface DetachedOptions {
  /** The whole environment; `childEnvironment` unless given. */
  env?: NodeJS.ProcessEnv
  /** A file that we have open: the process writes both of its outputs to it. */
  output: number
  /** Of regular files that we have open; it has them, opened anew in the same way, as 3, 4, … */
  fds?: readonly number[]
}

/**
 * Start a process in a session of its own. `argv[0]` is looked up in PATH. Resolves when it runs what was asked for; throws
 * when that cannot be started.
 */
export async function startDetached(argv: readonly string[], options: DetachedOptions): Promise<DetachedProcess> {
  const { env = childEnvironment(), output, fds = [] } = options
  const running = Promise.withResolvers<number>()
  const ended = Promise.withResolvers<string>()
  let how: string | null = null
  const end = (words: string) => {
    how = words
    ended.resolve(words)
  }
  const asked = { argv, env, cwd: '', descriptors: [output, ...fds], input: false, detached: true }
  spawner.spawn(asked, {
    started: running.resolve,
    ended: ({ exitCode, signal }) => end(signal === null ? `exit code ${exitCode}` : `signal ${signal}`),
    failed(why) {
      // of one that was started nothing is known when the spawner is gone, and it lives on
      running.reject(new Error(`${argv[0]} could not be started (${why})`))
    },
  })
  return { pid: await running.promise, end: () => how, ended: ended.promise }
}
