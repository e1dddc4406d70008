import { spawn } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { Server } from 'node:net'
import { join } from 'node:path'
import { serviceAddress } from '../network/names.ts'
import { inNamespace, isNamespace, namespacePath } from '../network/namespace.ts'
import { childEnvironment } from '../sys/child-environment.ts'

/** Time a child gets to open a listener, milliseconds; it takes about 70 on an idle machine. */
const openMs = 20_000

const program = join(import.meta.dirname, 'open-listener.ts')

/** How the metadata service comes to listen in a VPC's namespace. */
export interface NamespaceListeners {
  /** Which namespace has this name now; null when none has. One that is made anew is another. */
  identify(namespace: string): Promise<string | null>
  /** A listening socket in it. Ends early with the signal; nothing of it is left in the namespace then. */
  open(namespace: string, signal: AbortSignal): Promise<Server>
}

/** Listeners at the service address of real namespaces. */
export const namespaceListeners: NamespaceListeners = {
  async identify(namespace) {
    if (!(await isNamespace(namespace))) return null
    const { ino } = await stat(namespacePath(namespace), { bigint: true })
    return String(ino)
  },

  async open(namespace, signal) {
    signal.throwIfAborted()
    const [command = '', ...args] = [...inNamespace(namespace), process.execPath, program, serviceAddress, '80']
    const child = spawn(command, args, { env: childEnvironment(), stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    const ended = Promise.withResolvers<string>()
    let listening: Server | null = null
    let why = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      why = (why + text).slice(-1000)
    })
    child.on('message', (message, handle) => {
      if (handle instanceof Server) listening = handle
      else why = String(Reflect.get(Object(message), 'error'))
    })
    child.once('error', (error) => ended.resolve(error.message))
    child.once('close', (code, signal) => ended.resolve(signal === null ? `exit code ${code}` : `signal ${signal}`))
    const kill = () => child.kill('SIGKILL')
    const limit = setTimeout(kill, openMs)
    signal.addEventListener('abort', kill)
    // its end, not its word: while it lives it is a process in the namespace
    const how = await ended.promise
    clearTimeout(limit)
    signal.removeEventListener('abort', kill)
    if (listening === null)
      throw new Error(`no listener in ${namespace} (${how})${why === '' ? '' : `: ${why.trim()}`}`)
    return listening
  },
}
