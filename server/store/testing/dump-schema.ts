import { sql } from 'kysely'
import type { Store } from '../store.ts'

/** The schema of a store's database as text for reviewers, in the words of its dialect; always in the same order. */
export async function dumpSchema(store: Store): Promise<string> {
  return store.engine === 'sqlite' ? dumpSqlite(store) : dumpPostgres(store)
}

async function dumpSqlite(store: Store): Promise<string> {
  const { rows } = await sql<{ sql: string }>`
    select sql from sqlite_schema
    where sql is not null and tbl_name not like 'kysely_%' and name not like 'sqlite_%'
    order by tbl_name, type desc, name`.execute(store.read)
  return rows.map((row) => `${breakLines(row.sql)};\n`).join('\n')
}

/** SQLite keeps the text it was given, on one line: a line a column reads better in a diff. */
function breakLines(definition: string): string {
  if (!/^create table/i.test(definition)) return definition
  return definition
    .replace(/^(create table "\w+" )\(/i, '$1(\n  ')
    .replaceAll(/, (?="\w+" (?:text|integer|blob))|, (?=constraint )/g, ',\n  ')
    .replace(/\)(?= strict$)/, '\n)')
}

async function dumpPostgres(store: Store): Promise<string> {
  const { rows: columns } = await sql<{ line: string; table_name: string }>`
    select c.relname as table_name,
      '  ' || quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
        || case when a.attnotnull then ' not null' else '' end
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') as line
    from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and c.relname not like 'kysely_%'
    order by c.relname, a.attnum`.execute(store.read)
  const { rows: constraints } = await sql<{ line: string; table_name: string }>`
    select c.relname as table_name, '  constraint ' || k.conname || ' ' || pg_get_constraintdef(k.oid) as line
    from pg_constraint k join pg_class c on c.oid = k.conrelid
    where c.relnamespace = 'public'::regnamespace and c.relname not like 'kysely_%' and k.contype != 'n'
    order by c.relname, k.conname`.execute(store.read)
  const { rows: indexes } = await sql<{ line: string; table_name: string }>`
    select i.tablename as table_name, i.indexdef || ';' as line
    from pg_indexes i
    where i.schemaname = 'public' and i.tablename not like 'kysely_%'
      and not exists (select 1 from pg_constraint k where k.conname = i.indexname)
    order by i.tablename, i.indexname`.execute(store.read)
  const of = (rows: { table_name: string; line: string }[], table: string) =>
    rows.filter((row) => row.table_name === table).map((row) => row.line)
  const tables = [...new Set(columns.map((column) => column.table_name))]
  return tables
    .map((table) => {
      const body = [...of(columns, table), ...of(constraints, table)].join(',\n')
      return `create table ${table} (\n${body}\n);\n${of(indexes, table).join('\n')}\n`
    })
    .join('\n')
}
