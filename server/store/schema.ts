import type { OperationStatus, OperationType, StepName, StepStatus } from '@berth/contract/operation-kinds.ts'
import type { OperationError } from '@berth/contract/operations.ts'
import type { Generated } from 'kysely'

/**
 * The tables, in dialect-neutral terms: text, integers (times are milliseconds UTC) and JSON as text for documents
 * that are only read whole. One interface a table; the migrations create them.
 */
export interface Database {
  hosts: HostRow
  vpcs: VpcRow
  subnets: SubnetRow
  subnet_addresses: SubnetAddressRow
  security_groups: SecurityGroupRow
  ssh_keys: SshKeyRow
  images: ImageRow
  public_ips: PublicIpRow
  public_addresses: PublicAddressRow
  instances: InstanceRow
  instance_labels: InstanceLabelRow
  instance_security_groups: InstanceSecurityGroupRow
  instance_ssh_keys: InstanceSshKeyRow
  operations: OperationRow
  console_chunks: ConsoleChunkRow
  events: EventRow
  idempotency_keys: IdempotencyKeyRow
  host_usage: HostUsageRow
  host_orphans: HostOrphansRow
}

/** What the entity tag of a resource is made of. */
export interface VersionColumns {
  /** Tells it from another resource that had its id before; "" in rows that are older than this column. */
  uid: string
  /** Raised by every change of a caller. */
  generation: number
}

/**
 * A host: `allocated_*` are reservations of the placement controller, raised only by a conditional update that keeps
 * them within capacity. (No CHECK: a host may report less capacity than it has given away.)
 */
export interface HostRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  schedulable: number
  /** Raised in the transaction of every change that this host must hear of. */
  desired_revision: number
  agent_session: number
  sequence: number
  agent_version: string
  hypervisor: string
  accelerator: string
  accelerator_reason: string
  capacity_vcpus: number
  capacity_memory_mb: number
  capacity_disk_gb: number
  allocated_vcpus: number
  allocated_memory_mb: number
  allocated_disk_gb: number
  images: string
  last_seen_at: number
  /** Number of the last repair of its networks that became an event. */
  last_repair: number
  /** 1 once callers were told that nothing is heard of it any more, until its next report. */
  silent: number
}

/** What the instances of a host used when it last looked: JSON of `ObservedUsage[]`. */
export interface HostUsageRow {
  host_id: string
  figures: string
}

/** What a host last found that nothing explains; one row a host. */
export interface HostOrphansRow {
  host_id: string
  looked_at: number
  /** JSON of HostOrphan[]. */
  orphans: string
}

export interface VpcRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  cidr: string
  is_default: number
}

/** `next_offset` is the next address never handed out, counted from the network address. */
export interface SubnetRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  vpc_id: string
  cidr: string
  next_offset: number
  /** 1 when instances that are created there get a public address. */
  auto_assign_public_ip: number
}

/** An address that was handed out at least once; `instance_id` null means free again since `freed_at`. */
export interface SubnetAddressRow {
  subnet_id: string
  address: string
  instance_id: string | null
  freed_at: number
}

export interface SecurityGroupRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  description: string
  rules: string
}

export interface SshKeyRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  public_key: string
  fingerprint: string
}

/** An image made through the API. */
export interface ImageRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  title: string
  source_url: string
  checksum: string
  min_disk_gb: number
  default_user: string
  network: string
  datasource: string
  /** Null for the default. */
  ready_timeout_seconds: number | null
}

/** A public address that is allocated. `auto_assigned` is 1 while it goes with its instance. */
export interface PublicIpRow extends VersionColumns {
  id: string
  name: string
  labels: string
  created_at: number
  pool: string
  address: string
  instance_id: string | null
  auto_assigned: number
}

/** An address, as a number, that was handed out at least once; `public_ip_id` null means free again since `freed_at`. */
export interface PublicAddressRow {
  number: number
  public_ip_id: string | null
  freed_at: number
}

/**
 * An instance. Intent (`desired` … `reboot_grace_seconds`) is written by the domain and the settlement of reports,
 * placement (`host_id`, `scheduled_at`, `refusal`) by the placement controller, `report` by the agent's route.
 */
export interface InstanceRow {
  id: string
  name: string
  labels: string
  created_at: number
  type: string
  image: string
  vcpus: number
  memory_mb: number
  disk_gb: number
  vpc_id: string
  subnet_id: string
  private_ip: string
  mac: string
  security_groups: string
  ssh_key_ids: string
  user_data: string

  desired: string
  generation: number
  grace_seconds: number
  reboots: number
  reboot_grace_seconds: number
  /** `queue`, or `fail`: give up when no host has room now. */
  on_capacity: string
  /** `restart`, `stop` or `none`: what is done when the boot ends by a panic. */
  on_panic: string
  /** Raised by changes that the host need not hear of, of name and labels. */
  metadata_revision: number

  host_id: string | null
  scheduled_at: number | null
  refusal: string

  /** JSON of the host's latest ObservedInstance, null before the first. */
  report: string | null
  /** Failure or other cause that outlives the report: code and text for people. */
  reason: string
  message: string
  terminated_at: number | null
  operation_id: string
  /** Of its row in public_ips, written with that; "" for none. */
  public_ip: string
  /** What contract/instances/states.ts makes of the columns above, written with every change of them: for indexes only. */
  state: string
}

export interface InstanceLabelRow {
  instance_id: string
  key: string
  value: string
}

export interface InstanceSecurityGroupRow {
  instance_id: string
  security_group_id: string
}

export interface InstanceSshKeyRow {
  instance_id: string
  ssh_key_id: string
}

export interface OperationRow {
  id: string
  type: string
  resource_id: string
  status: string
  /** JSON of OperationStep[] with times in milliseconds. */
  steps: string
  /** JSON of OperationError, or null. */
  error: string | null
  /** Generation of the instance this operation brought about. */
  generation: number
  created_at: number
  deadline_at: number
  finished_at: number | null
}

/** A step as stored; times are milliseconds UTC. */
export interface StoredStep {
  name: StepName
  status: StepStatus
  attempt: number
  started_at: number | null
  finished_at: number | null
  error: { code: string; message: string } | null
}

/** An operation as stored, its JSON columns parsed. */
export interface StoredOperation extends Omit<OperationRow, 'type' | 'status' | 'steps' | 'error'> {
  type: OperationType
  status: OperationStatus
  steps: StoredStep[]
  error: OperationError | null
}

export interface ConsoleChunkRow {
  id: Generated<number>
  instance_id: string
  offset: number
  length: number
  data: Uint8Array
}

/** One entry of the change feed; the sequence numbers are committed in their order. */
export interface EventRow {
  sequence: Generated<number>
  at: number
  /** `instance.updated`. */
  type: string
  resource_id: string
  /** JSON of EventDetail. */
  detail: string
}

/** The answer that was given to a POST with an idempotency key, stored in the transaction of what the POST did. */
export interface IdempotencyKeyRow {
  key: string
  /** Of method, path and body. */
  fingerprint: string
  status: number
  location: string
  body: string
  created_at: number
}
