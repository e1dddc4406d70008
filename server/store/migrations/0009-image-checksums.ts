import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'

/**
 * The checksum of an image has its algorithm in front, in its row and in what hosts have reported, so that it can be
 * another one than SHA-256.
 */
export function imageChecksums(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await db.schema.alterTable('images').renameColumn('sha256', 'checksum').execute()
      await sql`update images set checksum = 'sha256:' || checksum`.execute(db)
      const [before, after] = ['"registered_sha256":"', '"registered_checksum":"sha256:']
      await sql`update hosts set images = replace(images, ${before}, ${after})`.execute(db)
    },
  }
}
