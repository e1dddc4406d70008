// What `berth` starts. It is JavaScript, and the program is imported only when the cache is on: to strip the types of a
// single file takes longer than to start Node.
import { enableCompileCache } from 'node:module'
import { userInfo } from 'node:os'
import { compileCacheDirectory } from './compile-cache.js'

const directory = compileCacheDirectory(user(), process.env.XDG_CACHE_HOME)
// without one everything is compiled at each start
if (directory !== null) enableCompileCache(directory)
await import('./berth.ts')

function user() {
  try {
    return userInfo()
  } catch {
    return { uid: process.getuid?.() ?? 0, homedir: '' } // it is not in the user database, as in some containers
  }
}
