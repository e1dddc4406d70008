import SqliteDatabase from 'better-sqlite3'
import type { Acknowledged } from './load.ts'

/** What must never be found in the server's database, whenever it was killed: a query that gives the offending rows. */
const torn: { [what: string]: string } = {
  'an instance without its operation': 'select id from instances where operation_id not in (select id from operations)',
  'an operation without its instance': 'select id from operations where resource_id not in (select id from instances)',
  'two open operations of one instance':
    'select resource_id from operations where finished_at is null group by resource_id having count(*) > 1',
  'an open operation of a terminated instance':
    'select operations.id from operations join instances on instances.id = resource_id where finished_at is null and terminated_at is not null',
  'an instance without its address':
    'select id from instances where terminated_at is null and id not in (select instance_id from subnet_addresses where instance_id is not null)',
  'an address that is another one than the instance shows':
    'select instances.id from instances join subnet_addresses on instance_id = instances.id where address <> private_ip',
  'an address that nobody has':
    'select address from subnet_addresses where instance_id is not null and instance_id not in (select id from instances where terminated_at is null)',
  'two instances with one address':
    'select private_ip from instances where terminated_at is null group by subnet_id, private_ip having count(*) > 1',
  'a public address that its instance does not show':
    'select public_ips.id from public_ips join instances on instances.id = instance_id where public_ip <> address or terminated_at is not null',
  'a public address that an instance shows and nobody gave it':
    "select id from instances where public_ip <> '' and id not in (select instance_id from public_ips where instance_id is not null)",
  'a public address that is not the one taken for it':
    'select id from public_ips where id not in (select public_ip_id from public_addresses where public_ip_id is not null)',
  'a public address that nobody holds and nobody else may have':
    'select number from public_addresses where public_ip_id is not null and public_ip_id not in (select id from public_ips)',
  'a reservation that is not the sum of the instances': `select hosts.id from hosts left join instances on host_id = hosts.id and terminated_at is null group by hosts.id
     having allocated_vcpus <> coalesce(sum(vcpus), 0) or allocated_memory_mb <> coalesce(sum(memory_mb), 0)
       or allocated_disk_gb <> coalesce(sum(disk_gb), 0)`,
  'a generation below 1': 'select id from instances where generation < 1',
}

/** Run something on a database; it is closed after. */
function withDatabase<T>(file: string, work: (db: SqliteDatabase.Database) => T): T {
  const db = new SqliteDatabase(file)
  try {
    return work(db)
  } finally {
    db.close()
  }
}

/** Faults of a database that no server has open: of the file itself, torn state, and acknowledged writes that are not there. */
export function databaseFaults(file: string, acknowledged: readonly Acknowledged[]): string[] {
  return withDatabase(file, (db) => {
    const integrity = db.pragma('integrity_check', { simple: true })
    const foreign = db.pragma('foreign_key_check') as unknown[]
    return [
      ...(integrity === 'ok' ? [] : [`integrity_check: ${String(integrity)}`]),
      ...foreign.map((row) => `foreign_key_check: ${JSON.stringify(row)}`),
      ...Object.entries(torn).flatMap(([what, query]) =>
        db
          .prepare(query)
          .all()
          .map((row) => `${what}: ${JSON.stringify(row)}`),
      ),
      ...missing(db, acknowledged),
    ]
  })
}

function missing(db: SqliteDatabase.Database, acknowledged: readonly Acknowledged[]): string[] {
  const findInstance = db.prepare<[string], { name: string; desired: string }>(
    'select name, desired from instances where id = ?',
  )
  const findOperation = db.prepare<[string], { resource_id: string }>('select resource_id from operations where id = ?')
  const faults: string[] = []
  for (const { id, name, deleted, operations } of acknowledged) {
    const row = findInstance.get(id)
    if (row === undefined) faults.push(`lost: instance ${id}`)
    else if (row.name !== name) faults.push(`instance ${id} is called ${row.name}, not ${name}`)
    else if (deleted && row.desired !== 'deleted') faults.push(`lost: the delete of ${id}`)
    for (const operation of operations) {
      if (findOperation.get(operation)?.resource_id !== id) faults.push(`lost: operation ${operation} of ${id}`)
    }
  }
  return faults
}

/** Creates that made more than one instance: name and count. */
export function duplicates(file: string): { name: string; count: number }[] {
  const query = 'select name, count(*) as count from instances group by name having count(*) > 1'
  return withDatabase(file, (db) => db.prepare<[], { name: string; count: number }>(query).all())
}

/** Operations that have not ended. May be read while the server runs. */
export function openOperations(file: string): string[] {
  const query = 'select id || type as line from operations where finished_at is null'
  return withDatabase(file, (db) => lines(db, query))
}

/** What is left in the server's database when every instance has been deleted: addresses, reservations, instances. */
export function databaseLeftovers(file: string): string[] {
  return withDatabase(file, (db) => [
    ...lines(db, "select 'address ' || address as line from subnet_addresses where instance_id is not null"),
    ...lines(db, "select 'public address ' || address as line from public_ips where auto_assigned = 1"),
    ...lines(
      db,
      "select 'reservation on ' || id as line from hosts where allocated_vcpus + allocated_memory_mb + allocated_disk_gb > 0",
    ),
    ...lines(db, "select 'instance ' || id as line from instances where terminated_at is null"),
  ])
}

/** Instances that the agent's ledger still has. */
export function ledgerLeftovers(file: string): string[] {
  return withDatabase(file, (db) => lines(db, 'select id as line from instances'))
}

function lines(db: SqliteDatabase.Database, query: string): string[] {
  return db
    .prepare<[], { line: string }>(query)
    .all()
    .map((row) => row.line)
}
