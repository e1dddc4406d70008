import { copyFile, rename, rm, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { renameDurably } from '@berth/agent/sys/durable-rename.ts'
import { backupSqlite, checkSqlite, type DatabaseContents } from '@berth/server/store/engine/sqlite-backup.ts'
import { dataPaths, lockDataDirectory } from './data-directory.ts'

/** `berth database backup`: a copy of the database, also while the server works with it. Gives what to say. */
export async function backupDatabase(file: string, flags: { dataDir: string; force: boolean }): Promise<string> {
  const target = resolve(file)
  if (!flags.force && (await exists(target))) throw new Error(`${target} exists; give --force to replace it`)
  const contents = await backupSqlite(dataPaths(resolve(flags.dataDir)).database, target)
  return `${target}: ${describe(contents)}`
}

/** `berth database check`: whether a file is whole and can be used. Gives what to say. */
export function checkDatabase(file: string): string {
  return `${resolve(file)} is whole: ${describe(checkSqlite(resolve(file)))}`
}

/**
 * `berth database restore`: put a backup in the place of the database, with no server running. The database that was
 * there is kept beside it. Gives what to say.
 */
export async function restoreDatabase(file: string, flags: { dataDir: string }): Promise<string> {
  const source = resolve(file)
  const contents = checkSqlite(source)
  const path = resolve(flags.dataDir)
  const { database } = dataPaths(path)
  const release = await lockDataDirectory(path)
  try {
    await copyFile(source, `${database}.partial`)
    checkSqlite(`${database}.partial`)
    const kept = await keepDatabase(database)
    await renameDurably(`${database}.partial`, database)
    return [
      `restored ${database}: ${describe(contents)}`,
      ...(kept === null ? [] : [`what was there before is kept in ${kept}`]),
      'instances that were made after the backup run on, and this server does not know them; see docs/backup.md',
    ].join('\n')
  } finally {
    release()
  }
}

/** Move the database away, with what is in its WAL: the server may have been killed. */
async function keepDatabase(database: string): Promise<string | null> {
  if (!(await exists(database))) return null
  const kept = `${database}.before-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}`
  await backupSqlite(database, kept).catch(() => rename(database, kept)) // one that is damaged is kept as it is
  for (const part of ['', '-wal', '-shm']) await rm(`${database}${part}`, { force: true })
  return kept
}

function describe({ schema, instances, operations, lastEvent }: DatabaseContents): string {
  return `${instances} instances, ${operations} operations, newest event ${lastEvent}, schema ${schema}`
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
