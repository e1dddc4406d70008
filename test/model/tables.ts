import type { ObservedInstance } from '@berth/contract/hosts/agent-protocol.ts'
import type { DesiredPower, InstanceState } from '@berth/contract/instances/states.ts'
import { formatAddress } from '@berth/contract/networks/cidr.ts'
import type { HostRow, InstanceRow, OperationRow, PublicIpRow, SubnetAddressRow } from '@berth/server/store/schema.ts'
import SqliteDatabase from 'better-sqlite3'

/** An instance as it is stored, with the parts of its report that the checks look at. */
export interface InstanceNow extends Omit<InstanceRow, 'report' | 'desired' | 'labels' | 'security_groups'> {
  labels: Record<string, string>
  security_groups: string[]
  desired: DesiredPower
  report: ObservedInstance | null
}

/** An operation as it is stored, without its steps. */
export type OperationNow = Pick<
  OperationRow,
  'id' | 'type' | 'resource_id' | 'status' | 'error' | 'generation' | 'created_at' | 'deadline_at' | 'finished_at'
>

/** What the server has stored at one moment. */
export interface Tables {
  instances: Map<string, InstanceNow>
  operations: Map<string, OperationNow>
  addresses: SubnetAddressRow[]
  publicIps: Map<string, PublicIpRow>
  /** Public addresses that are taken, by the resource they are taken for. */
  publicAddresses: Map<string, string>
  hosts: HostRow[]
  /** What instances are found by, a line each: `id key=value`, `id group`. */
  labels: string[]
  groups: string[]
}

/** A look at the tables of a server that is not the server's own code. */
export class Observer {
  readonly #db: SqliteDatabase.Database
  readonly #readAll: () => Tables
  readonly #readInstance: SqliteDatabase.Statement<[string], InstanceRow>

  constructor(file: string) {
    this.#db = new SqliteDatabase(file, { readonly: true })
    const prepare = <T>(sql: string) => this.#db.prepare<[], T>(sql)
    const instances = prepare<InstanceRow>('select * from instances order by id')
    const operations = prepare<OperationNow>(
      `select id, type, resource_id, status, error, generation, created_at, deadline_at, finished_at
       from operations order by id`,
    )
    const addresses = prepare<SubnetAddressRow>('select * from subnet_addresses where instance_id is not null')
    const publicIps = prepare<PublicIpRow>('select * from public_ips order by id')
    const publicAddresses = prepare<{ number: number; public_ip_id: string }>(
      'select number, public_ip_id from public_addresses where public_ip_id is not null',
    )
    const hosts = prepare<HostRow>('select * from hosts')
    const labels = prepare<string>("select instance_id || ' ' || key || '=' || value from instance_labels").pluck()
    const groups = prepare<string>(
      "select instance_id || ' ' || security_group_id from instance_security_groups",
    ).pluck()
    this.#readInstance = this.#db.prepare('select * from instances where id = ?')
    this.#readAll = this.#db.transaction(() => ({
      instances: new Map(instances.all().map((row) => [row.id, parse(row)])),
      operations: new Map(operations.all().map((row) => [row.id, row])),
      addresses: addresses.all(),
      publicIps: new Map(publicIps.all().map((row) => [row.id, row])),
      publicAddresses: new Map(publicAddresses.all().map((row) => [row.public_ip_id, formatAddress(row.number)])),
      hosts: hosts.all(),
      labels: labels.all(),
      groups: groups.all(),
    }))
  }

  /** Everything, as of one moment. */
  tables(): Tables {
    return this.#readAll()
  }

  /** One instance, or null. */
  instance(id: string): InstanceNow | null {
    const row = this.#readInstance.get(id)
    return row === undefined ? null : parse(row)
  }

  /** Everything that is stored about an instance, as text to compare. */
  textOf(id: string): string {
    const rows = ['instances where id', 'operations where resource_id', 'subnet_addresses where instance_id'].map(
      (from) => this.#db.prepare(`select * from ${from} = ?`).all(id),
    )
    return JSON.stringify(rows)
  }

  close(): void {
    this.#db.close()
  }
}

function parse(row: InstanceRow): InstanceNow {
  return {
    ...row,
    desired: row.desired as DesiredPower,
    labels: JSON.parse(row.labels),
    security_groups: JSON.parse(row.security_groups),
    report: row.report === null ? null : JSON.parse(row.report),
  }
}

/** The table of states as the design gives it; `none` is no report yet, on a host. */
const states: Record<DesiredPower, Record<ObservedInstance['power'] | 'none', InstanceState>> = {
  running: {
    none: 'provisioning',
    starting: 'provisioning',
    running: 'running',
    shutting_down: 'provisioning',
    off: 'provisioning',
    absent: 'provisioning',
  },
  stopped: {
    none: 'stopped',
    starting: 'stopping',
    running: 'stopping',
    shutting_down: 'stopping',
    off: 'stopped',
    absent: 'stopped',
  },
  deleted: {
    none: 'stopping',
    starting: 'stopping',
    running: 'stopping',
    shutting_down: 'stopping',
    off: 'stopping',
    absent: 'terminated',
  },
}

/** The state that an instance has by the design's table. */
export function stateByTable(instance: InstanceNow): InstanceState {
  if (instance.desired === 'deleted' && instance.host_id === null) return 'terminated'
  return states[instance.desired][instance.report?.power ?? 'none']
}

/** Which state may follow which in what the server stores: `terminated` is the end, everything else may turn. */
const successors: Record<InstanceState, readonly InstanceState[]> = {
  provisioning: ['running', 'stopping', 'stopped', 'terminated'],
  running: ['provisioning', 'stopping', 'stopped', 'terminated'],
  stopping: ['provisioning', 'running', 'stopped', 'terminated'],
  stopped: ['provisioning', 'running', 'stopping', 'terminated'],
  terminated: [],
}

/** Whether an instance may be seen in one state and then in another. */
export function mayFollow(before: InstanceState, after: InstanceState): boolean {
  return before === after || successors[before].includes(after)
}
