import Type, { type Static } from 'typebox'
import { chosenIdPattern, generatedIdPattern } from '../ids.ts'
import { CatalogueImage, HostImage, ImageId, RegisteredChecksum } from '../images/images.ts'
import { sizeLimits } from '../instances/bounds.ts'
import { ConditionStatus, type conditionTypes, type timelineFields } from '../instances/instances.ts'
import { panicPolicies } from '../instances/machine-troubles.ts'
import { observedPowers } from '../instances/states.ts'
import { ObservedUsage } from '../instances/usage.ts'
import { PolicyGroup } from '../networks/policy.ts'
import { stepNames, stepStatuses } from '../operation-kinds.ts'
import { Name, oneOf, strict } from '../schema.ts'
import { hostOrphanKinds, mostHostOrphans } from './orphans.ts'

/**
 * What server and agent say to each other. The server says what should be (`Desired`), the agent what is
 * (`Observed`). Both are whole snapshots: a lost, doubled or late message costs time, never correctness.
 * All times are milliseconds UTC.
 */

/** Longest a server holds `GET /v1/agent/desired` before it answers 204. */
export const desiredHoldMs = 25_000

/** Bytes of serial output the server keeps per instance. */
export const consoleLogKeptBytes = 256 * 1024

/** Most serial bytes of one instance in one post, and of all instances in it. */
export const consoleChunkBytes = 64 * 1024
export const consolePostBytes = 512 * 1024

/** Most instances in one post: they share a transaction. */
export const consolePostChunks = 64

const InstanceId = Type.String({ pattern: generatedIdPattern('inst') })
const Ipv4 = Type.String({ format: 'ipv4' })
const Mac = Type.String({ pattern: '^[0-9a-f]{2}(:[0-9a-f]{2}){5}$' })
const TimeMs = Type.Integer({ minimum: 0 })
const Count = Type.Integer({ minimum: 0 })
const VpcId = Type.String({ pattern: chosenIdPattern('vpc') })
const SubnetId = Type.String({ pattern: chosenIdPattern('subnet') })
const Cidr = Type.String({ maxLength: 18, pattern: '^[0-9.]+/[0-9]+$' })

export const DesiredInstance = Type.Object(
  {
    id: InstanceId,
    operation_id: Type.Optional(
      Type.String({
        pattern: generatedIdPattern('op'),
        description:
          'Operation that was opened last; for logs. Absent in what an agent stored before it had this field',
      }),
    ),
    generation: Type.Integer({ minimum: 1 }),
    power: oneOf(['running', 'stopped', 'deleted']),
    power_since: Type.Optional(
      Type.Integer({
        minimum: 1,
        description:
          'Generation of the last call that asked for this power or for a reboot; later ones changed other things. ' +
          'Absent in what an agent stored before it had this field: then it is the generation',
      }),
    ),
    grace_seconds: Type.Integer({ minimum: 0, maximum: 3600 }),
    reboots: Type.Object({ count: Count, grace_seconds: Type.Integer({ minimum: 0, maximum: 3600 }) }, strict),
    hostname: Name,
    type: Type.String({ maxLength: 63, default: '', description: 'Name of its instance type; for its metadata' }),
    image_id: ImageId,
    vcpus: Type.Integer(sizeLimits.vcpus),
    memory_mb: Type.Integer(sizeLimits.memoryMb),
    disk_gb: Type.Integer(sizeLimits.diskGb),
    vpc_id: VpcId,
    subnet_id: SubnetId,
    private_ip: Ipv4,
    mac: Mac,
    security_groups: Type.Array(Type.String({ pattern: chosenIdPattern('sg') }), {
      maxItems: 64,
      default: [],
      description: 'Ids of those in `Desired.security_groups` that filter its packets; none lets nothing pass',
    }),
    public_ip: Type.Union([Type.Literal(''), Ipv4], { default: '', description: '"" for none' }),
    bandwidth_mbps: Type.Integer({
      minimum: 0,
      maximum: 1_000_000,
      default: 0,
      description: 'Mbit/s in each direction; 0 is unlimited',
    }),
    ssh_public_keys: Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 64 }),
    user_data: Type.String({ description: 'base64' }),
    on_panic: Type.Optional(
      oneOf(panicPolicies, { description: 'Absent in what an agent stored before it had this field: then `restart`' }),
    ),
  },
  strict,
)
export type DesiredInstance = Static<typeof DesiredInstance>

export const DesiredNetwork = Type.Object(
  {
    vpc_id: VpcId,
    cidr: Cidr,
    subnets: Type.Array(Type.Object({ id: SubnetId, cidr: Cidr, gateway: Ipv4 }, strict)),
  },
  strict,
)
export type DesiredNetwork = Static<typeof DesiredNetwork>

/** An image that an instance of the host is made from. */
export const DesiredImage = Type.Object(
  {
    ...CatalogueImage.properties,
    registered: Type.Optional(
      Type.Literal(true, {
        description:
          'Made through the API: a download of it is good only with its checksum, and goes when it is deleted',
      }),
    ),
  },
  strict,
)
export type DesiredImage = Static<typeof DesiredImage>

/** A download that no image needs any more: the host removes it when it is the one with this checksum. */
export const RemovedImage = Type.Object({ id: ImageId, registered_checksum: RegisteredChecksum }, strict)
export type RemovedImage = Static<typeof RemovedImage>

export const Desired = Type.Object(
  {
    revision: Count,
    instances: Type.Array(DesiredInstance),
    networks: Type.Array(DesiredNetwork),
    security_groups: Type.Array(PolicyGroup, { default: [], description: 'All that these instances carry' }),
    images: Type.Array(DesiredImage),
    removed_images: Type.Optional(
      Type.Array(RemovedImage, { description: 'Absent in what an agent stored before it had this field' }),
    ),
  },
  strict,
)
export type Desired = Static<typeof Desired>

/** Who ended the last run of the VMM; `panic`: the host, since the guest could not go on and was to be stopped then. */
export const offCauses = ['', 'host', 'guest', 'crash', 'panic'] as const
export type OffCause = (typeof offCauses)[number]

const Text = Type.String({ maxLength: 8192 })

export const ObservedCondition = Type.Object(
  { status: ConditionStatus, reason: Type.String({ maxLength: 64 }), message: Text, at: TimeMs },
  strict,
)
export type ObservedCondition = Static<typeof ObservedCondition>

export const ObservedStep = Type.Object(
  {
    name: oneOf(stepNames),
    status: oneOf(stepStatuses),
    attempt: Count,
    started_at: Type.Union([TimeMs, Type.Null()]),
    finished_at: Type.Union([TimeMs, Type.Null()]),
    error: Type.Union([Type.Object({ code: Type.String({ maxLength: 64 }), message: Text }, strict), Type.Null()]),
  },
  strict,
)
export type ObservedStep = Static<typeof ObservedStep>

export const ObservedFailure = Type.Object(
  { code: Type.String({ maxLength: 64 }), message: Text, retryable: Type.Boolean() },
  strict,
)
export type ObservedFailure = Static<typeof ObservedFailure>

export const ObservedInstance = Type.Object(
  {
    id: InstanceId,
    generation: Type.Integer({ minimum: 0, description: 'Highest generation this host has carried out' }),
    seen_generation: Type.Integer({ minimum: 0, description: 'Generation the report was made under' }),
    power: oneOf(observedPowers),
    off_cause: oneOf(offCauses),
    reboots: Count,
    restarts: Count,
    started_at: Type.Union([TimeMs, Type.Null()]),
    conditions: Type.Partial(
      Type.Object(
        {
          ImageReady: ObservedCondition,
          DiskReady: ObservedCondition,
          NetworkReady: ObservedCondition,
          Booted: ObservedCondition,
          GuestReady: ObservedCondition,
        },
        strict,
      ),
    ),
    timeline: Type.Partial(
      Type.Object(
        {
          image_ready_at: TimeMs,
          disk_ready_at: TimeMs,
          network_ready_at: TimeMs,
          vmm_started_at: TimeMs,
          kernel_at: TimeMs,
          guest_ready_at: TimeMs,
        },
        strict,
      ),
    ),
    steps: Type.Array(ObservedStep, { maxItems: 16 }),
    failure: Type.Union([ObservedFailure, Type.Null()], {
      description: 'Why what is wanted cannot be reached; the host has stopped trying',
    }),
    network: Type.Object({ netns: Type.String({ maxLength: 64 }), interface: Type.String({ maxLength: 15 }) }, strict),
  },
  strict,
)
export type ObservedInstance = Static<typeof ObservedInstance>

export const ObservedImage = Type.Object(
  {
    id: ImageId,
    state: oneOf(['downloading', 'available', 'failed']),
    received_bytes: Count,
    total_bytes: Type.Union([Count, Type.Null()]),
    reason: Text,
    registered_checksum: Type.Optional(RegisteredChecksum),
    image: Type.Union([HostImage, Type.Null()]),
  },
  strict,
)
export type ObservedImage = Static<typeof ObservedImage>

/** The objects of a host's networks that an agent puts right; `host_*` are those outside of the VPCs' namespaces. */
export const networkObjects = [
  'namespace',
  'uplink',
  'route',
  'setting',
  'tap',
  'neighbour',
  'shaping',
  'ruleset',
  'dnsmasq',
  'host_setting',
  'host_ruleset',
  'host_route',
  'host_neighbour',
] as const
export type NetworkObject = (typeof networkObjects)[number]

/** Repairs that a report carries at most; an agent that cannot report keeps the latest. */
export const mostRepairs = 200

export const ObservedRepair = Type.Object(
  {
    number: Type.Integer({ minimum: 1, description: 'Rises with every repair of this host, also over restarts' }),
    at: TimeMs,
    vpc_id: Type.Union([Type.Literal(''), VpcId], { description: '"" of what is no single VPC\'s' }),
    object: oneOf(networkObjects),
    detail: Type.String({ maxLength: 500 }),
  },
  strict,
)
export type ObservedRepair = Static<typeof ObservedRepair>

export const HostOrphan = Type.Object(
  {
    kind: oneOf(hostOrphanKinds),
    name: Type.String({ maxLength: 500 }),
    detail: Type.String({ maxLength: 500 }),
  },
  strict,
)
export type HostOrphan = Static<typeof HostOrphan>

export const Observed = Type.Object(
  {
    agent_session: TimeMs,
    sequence: Count,
    revision: Count,
    agent_version: Type.String({ maxLength: 64 }),
    hostname: Type.String({ maxLength: 255 }),
    hypervisor: oneOf(['qemu', 'simulated']),
    accelerator: oneOf(['kvm', 'tcg', 'none']),
    accelerator_reason: Text,
    capacity: Type.Object({ vcpus: Count, memory_mb: Count, disk_gb: Count }, strict),
    usage: Type.Optional(
      Type.Array(ObservedUsage, {
        maxItems: 100_000,
        description: 'What every running instance used when the host last looked; now and then',
      }),
    ),
    images: Type.Array(ObservedImage, { maxItems: 10_000 }),
    instances: Type.Array(ObservedInstance, { maxItems: 100_000 }),
    network_repairs: Type.Optional(
      Type.Array(ObservedRepair, {
        maxItems: mostRepairs,
        description: 'Those of which no report was accepted yet; the numbers tell which were heard of before',
      }),
    ),
    orphans: Type.Optional(
      Type.Object(
        { age_ms: Count, found: Type.Array(HostOrphan, { maxItems: mostHostOrphans }) },
        { ...strict, description: 'What the host last found that nothing explains; when no report told of it yet' },
      ),
    ),
  },
  strict,
)
export type Observed = Static<typeof Observed>

/** New serial bytes of an instance: `data` is base64, `offset` counts bytes since the instance was created. */
export const ConsoleChunk = Type.Object(
  { instance_id: InstanceId, offset: Count, data: Type.String({ maxLength: Math.ceil(consoleChunkBytes / 3) * 4 }) },
  strict,
)
export type ConsoleChunk = Static<typeof ConsoleChunk>

/** New serial output of a host's instances. */
export const ConsolePost = Type.Object({ chunks: Type.Array(ConsoleChunk, { maxItems: consolePostChunks }) }, strict)

/**
 * Where the server wants the next chunk of each instance to start, in the order of the chunks; null for an instance that
 * it does not know on this host.
 */
export const ConsolePositions = Type.Object(
  { next_offsets: Type.Array(Type.Union([Count, Type.Null()]), { maxItems: consolePostChunks }) },
  strict,
)

/** The conditions a host reports; `Scheduled` is the server's own. */
export type HostCondition = Exclude<(typeof conditionTypes)[number], 'Scheduled'>

/** The part of the boot timeline a host reports. */
export type HostTimelineField = Exclude<(typeof timelineFields)[number], 'accepted_at' | 'scheduled_at'>
