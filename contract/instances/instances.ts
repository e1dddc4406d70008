import Type, { type Static } from 'typebox'
import { chosenIdPattern, generatedIdPattern } from '../ids.ts'
import { ImageId } from '../images/images.ts'
import {
  FilterText,
  Labels,
  Metadata,
  MetadataInput,
  MetadataPatch,
  named,
  oneOf,
  pageOf,
  ref,
  resourceListQuery,
  strict,
  Timestamp,
  TimestampOrEmpty,
} from '../schema.ts'
import { graceSeconds, onCapacity, sizeLimits, userDataMaxBytes, waitTargets } from './bounds.ts'
import { panicPolicies } from './machine-troubles.ts'
import { instanceStates } from './states.ts'

/** base64 needs a third more. */
const userDataMaxCharacters = Math.ceil(userDataMaxBytes / 3) * 4

const Vcpus = Type.Integer({ ...sizeLimits.vcpus, description: 'Virtual CPUs' })
const MemoryMb = Type.Integer({ ...sizeLimits.memoryMb, description: 'Memory, MiB' })
const DiskGb = Type.Integer({ ...sizeLimits.diskGb, description: 'Root disk, GiB' })
const TypeId = Type.String({ pattern: '^[a-z0-9][a-z0-9.-]{0,62}$', description: 'Id of an instance type' })
const VpcRef = Type.String({ pattern: chosenIdPattern('vpc') })
const SubnetRef = Type.String({ pattern: chosenIdPattern('subnet') })
const SecurityGroupRef = Type.String({ pattern: chosenIdPattern('sg') })
const SecurityGroups = Type.Array(SecurityGroupRef, { maxItems: 16, uniqueItems: true })
const SshKeyRef = Type.String({ pattern: chosenIdPattern('key') })
const UserData = Type.String({
  maxLength: userDataMaxCharacters,
  description: 'base64 (RFC 4648) of a cloud-init document or a #! script, at most 64 KiB decoded',
  examples: ['IyEvYmluL2Jhc2gKYXB0IHVwZGF0ZQ=='],
})

const OnPanic = oneOf(panicPolicies, {
  description:
    "When the guest's kernel panics or the machine cannot go on: start it again with growing pauses (default), stop it, " +
    'or leave it as it is',
})

export const InstanceSpecInput = Type.Object(
  {
    type: TypeId,
    image: ImageId,
    vcpus: Type.Optional(Vcpus),
    memory_mb: Type.Optional(MemoryMb),
    disk_gb: Type.Optional(DiskGb),
    vpc_id: Type.Optional(VpcRef),
    subnet_id: Type.Optional(SubnetRef),
    security_groups: Type.Optional(SecurityGroups),
    ssh_key_ids: Type.Optional(Type.Array(SshKeyRef, { maxItems: 64, uniqueItems: true })),
    user_data: Type.Optional(UserData),
    on_panic: Type.Optional(OnPanic),
  },
  strict,
)
export type InstanceSpecInput = Static<typeof InstanceSpecInput>

/** Why a host does not take an instance. */
export const refusals = ['unreachable', 'cordoned', 'too_small', 'no_vcpus', 'no_memory', 'no_disk'] as const
export type Refusal = (typeof refusals)[number]

export const InstanceCreate = named(
  'InstanceCreate',
  Type.Object(
    {
      metadata: Type.Optional(MetadataInput),
      spec: InstanceSpecInput,
      on_capacity: Type.Optional(
        oneOf(onCapacity, { description: 'When no host has room now: wait in the queue (default), or fail' }),
      ),
    },
    strict,
  ),
)
export type InstanceCreate = Static<typeof InstanceCreate>

export const InstancePatch = named(
  'InstancePatch',
  Type.Object(
    {
      metadata: Type.Optional(MetadataPatch),
      spec: Type.Optional(Type.Object({ security_groups: Type.Optional(SecurityGroups) }, strict)),
    },
    strict,
  ),
)
export type InstancePatch = Static<typeof InstancePatch>

export const InstanceSpec = named(
  'InstanceSpec',
  Type.Object(
    {
      type: TypeId,
      image: ImageId,
      vcpus: Vcpus,
      memory_mb: MemoryMb,
      disk_gb: DiskGb,
      vpc_id: VpcRef,
      subnet_id: SubnetRef,
      security_groups: Type.Array(SecurityGroupRef),
      ssh_key_ids: Type.Array(SshKeyRef),
      user_data: UserData,
      on_panic: OnPanic,
    },
    strict,
  ),
)
export type InstanceSpec = Static<typeof InstanceSpec>

/** The conditions of an instance, in the order they come true. */
export const conditionTypes = ['Scheduled', 'ImageReady', 'DiskReady', 'NetworkReady', 'Booted', 'GuestReady'] as const
export type ConditionType = (typeof conditionTypes)[number]

export const ConditionStatus = oneOf(['true', 'false', 'unknown'])
export type ConditionStatus = Static<typeof ConditionStatus>

export const Condition = named(
  'Condition',
  Type.Object(
    {
      type: oneOf(conditionTypes),
      status: ConditionStatus,
      reason: Type.String({ description: 'Stable code for programs, "" when there is nothing to say' }),
      message: Type.String({ description: 'For people' }),
      at: TimestampOrEmpty,
    },
    strict,
  ),
)
export type Condition = Static<typeof Condition>

/** Fields of the boot timeline, in order; each is RFC 3339 UTC with milliseconds, "" while unknown. */
export const timelineFields = [
  'accepted_at',
  'scheduled_at',
  'image_ready_at',
  'disk_ready_at',
  'network_ready_at',
  'vmm_started_at',
  'kernel_at',
  'guest_ready_at',
] as const
export type TimelineField = (typeof timelineFields)[number]

export const BootTimeline = named(
  'BootTimeline',
  Type.Object(
    {
      accepted_at: TimestampOrEmpty,
      scheduled_at: TimestampOrEmpty,
      image_ready_at: TimestampOrEmpty,
      disk_ready_at: TimestampOrEmpty,
      network_ready_at: TimestampOrEmpty,
      vmm_started_at: TimestampOrEmpty,
      kernel_at: TimestampOrEmpty,
      guest_ready_at: TimestampOrEmpty,
    },
    strict,
  ),
)
export type BootTimeline = Static<typeof BootTimeline>

const State = oneOf(instanceStates)

const contractStatus = {
  state: State,
  host_id: Type.String({ description: 'Host it runs on, "" until placed' }),
  private_ip: Type.String({ description: 'IPv4 address, "" until placed' }),
  public_ip: Type.String({ description: 'IPv4 address, "" when there is none' }),
}

const InstanceId = Type.String({ pattern: generatedIdPattern('inst') })
const OperationRef = Type.String({ pattern: generatedIdPattern('op'), description: 'The latest operation' })

/** The answer to POST: status has exactly the four strings of the contract. */
export const InstanceCreated = named(
  'InstanceCreated',
  Type.Object(
    {
      id: InstanceId,
      metadata: ref(Metadata),
      spec: ref(InstanceSpec),
      status: Type.Object(contractStatus, strict),
      operation_id: OperationRef,
    },
    strict,
  ),
)
export type InstanceCreated = Static<typeof InstanceCreated>

export const Instance = named(
  'Instance',
  Type.Object(
    {
      id: InstanceId,
      metadata: ref(Metadata),
      spec: ref(InstanceSpec),
      status: Type.Object(
        {
          ...contractStatus,
          reason: Type.String({
            description:
              'Why it is stopped, terminated, not getting on, or without the public address that its subnet gives; "" otherwise',
          }),
          message: Type.String({ description: 'The same for people' }),
          started_at: TimestampOrEmpty,
          observed_generation: Type.Integer({ minimum: 0, description: 'Generation the host last reported done' }),
          restarts: Type.Integer({ minimum: 0, description: 'Times the VMM was started again after a crash' }),
          network: Type.Object(
            {
              netns: Type.String({ description: 'Network namespace on the host, "" unless set up' }),
              interface: Type.String({ description: 'Tap on the host, "" unless set up' }),
            },
            strict,
          ),
          conditions: Type.Array(ref(Condition)),
          boot_timeline: ref(BootTimeline),
        },
        strict,
      ),
      operation_id: OperationRef,
    },
    strict,
  ),
)
export type Instance = Static<typeof Instance>

/** The answer to a dry run: the document that would be, its ids "", and what placement says now. */
export const InstanceDryRun = named(
  'InstanceDryRun',
  Type.Object(
    {
      id: Type.Literal(''),
      metadata: Type.Object(
        {
          name: Type.String({ description: '"" when none was given: it would be the id' }),
          labels: Labels,
          created_at: Timestamp,
          generation: Type.Integer(),
        },
        strict,
      ),
      spec: ref(InstanceSpec),
      status: Type.Object(contractStatus, strict),
      operation_id: Type.Literal(''),
      placement: Type.Object(
        {
          host_id: Type.String({ description: 'Host it would be placed on now, "" when none has room' }),
          hosts: Type.Integer({ minimum: 0, description: 'Hosts that were looked at' }),
          refusals: Type.Array(Type.Object({ reason: oneOf(refusals), hosts: Type.Integer({ minimum: 1 }) }, strict)),
          message: Type.String({ description: 'The same for people, "" when there is room' }),
        },
        strict,
      ),
    },
    strict,
  ),
)
export type InstanceDryRun = Static<typeof InstanceDryRun>

export const InstanceList = named('InstanceList', pageOf(Instance))
export type InstanceList = Static<typeof InstanceList>

const GraceSeconds = Type.Integer({
  minimum: graceSeconds.minimum,
  maximum: graceSeconds.maximum,
  description: 'Seconds between the power button and the power-off',
})

/** Body of stop and reboot; may be absent or empty. */
export const PowerActionBody = named(
  'PowerActionBody',
  Type.Object(
    {
      force: Type.Optional(Type.Boolean({ description: 'Power off at once, as pulling the plug' })),
      grace_seconds: Type.Optional(GraceSeconds),
    },
    strict,
  ),
)
export type PowerActionBody = Static<typeof PowerActionBody>

export const StartBody = named('StartBody', Type.Object({}, strict))

export const Accepted = named(
  'Accepted',
  Type.Object({ operation_id: Type.String({ pattern: generatedIdPattern('op') }) }, strict),
)
export type Accepted = Static<typeof Accepted>

export const InstanceGetQuery = Type.Object(
  {
    wait_for: Type.Optional(oneOf(waitTargets)),
    timeout: Type.Optional(Type.Integer({ minimum: 0, maximum: 600, default: 60, description: 'Seconds' })),
  },
  strict,
)

const FilterId = Type.Optional(FilterText)

export const InstanceCreateQuery = Type.Object(
  { dry_run: Type.Optional(Type.Boolean({ description: 'Check everything, keep nothing, answer 200' })) },
  strict,
)

export const InstanceListQuery = Type.Object(
  {
    ...resourceListQuery,
    state: Type.Optional(State),
    host_id: FilterId,
    vpc_id: FilterId,
    subnet_id: FilterId,
  },
  strict,
)

export const InstanceDeleteQuery = Type.Object({ grace_seconds: Type.Optional(GraceSeconds) }, strict)

export const ConsoleLogQuery = Type.Object(
  { tail: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000, description: 'Only the last lines' })) },
  strict,
)
