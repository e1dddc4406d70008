import { mkdirSync, statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'

/**
 * The directory of a user's compiled modules, made where it is missing. What lies there is run, so nobody else may write
 * to it; root's is always below its own home, whatever sudo(8) has left of the environment. Null where there can be none.
 *
 * @param {{ uid: number, homedir: string }} user of the user database: HOME may name another's
 * @param {string | undefined} named XDG_CACHE_HOME
 * @returns {string | null}
 */
export function compileCacheDirectory({ uid, homedir }, named = '') {
  if (!isAbsolute(homedir)) return null
  const caches = uid !== 0 && isAbsolute(named) ? named : join(homedir, '.cache')
  const directory = join(caches, 'berth', 'compiled')
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const { uid: owner, mode } = statSync(directory)
    return owner === uid && (mode & 0o022) === 0 ? directory : null
  } catch {
    return null
  }
}
