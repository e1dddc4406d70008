import { onCapacity, sizeLimits, userDataMaxBytes } from '@berth/contract/instances/bounds.ts'
import { type PanicPolicy, panicPolicies } from '@berth/contract/instances/machine-troubles.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { type DeclaredDocument, fileFault, inTermsOfFile, isRecord, nameOf } from '../apply/declared-document.ts'
import { integer, readInput, resourceId, resourceIds, timeoutSeconds } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withMetadata } from '../command/labels.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { describe, followOperation, Patience } from '../live/follow.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatSeconds } from '../output/table.ts'
import { call, openSession, type Session } from '../session.ts'
import { printInstance, renderDryRun } from './instance-view.ts'
import { userDataDoubt } from './user-data-doubt.ts'

/** How far a command that boots an instance waits; `--no-wait` makes it false. */
export type WaitFlag = 'running' | 'ready' | 'none' | false

/** Give a command that boots an instance its `--wait`, `--no-wait` and `--timeout`. */
export function withBootWait(command: Command, until: 'running' | 'ready'): Command {
  return command
    .addOption(
      new Option('--wait <until>', 'running: its CPUs run; ready: its first boot is over')
        .choices(['running', 'ready', 'none'])
        .default(until),
    )
    .option('--no-wait', 'the same as --wait none')
    .option('--timeout <seconds>', 'give up waiting after this time', timeoutSeconds, 600)
}

interface CreateFlags extends MetadataFlags, OutputFlags {
  file?: string
  type?: string
  image?: string
  vcpus?: number
  memoryMb?: number
  diskGb?: number
  vpc?: string
  subnet?: string
  securityGroup?: string[]
  sshKey?: string[]
  userDataFile?: string
  onPanic?: PanicPolicy
  onCapacity?: (typeof onCapacity)[number]
  dryRun?: true
  idempotencyKey?: string
  wait: WaitFlag
  timeout: number
}

/** `berth instance create`. */
export function addInstanceCreateCommand(group: Command, io: CliIo): void {
  const command = withMetadata(group.command('create').description('create an instance and wait until it is ready'))
    .option('--type <id>', 'size; see berth type list', resourceId)
    .option('--image <id>', 'what it boots from; see berth image list', resourceId)
    .option('--vcpus <n>', "virtual CPUs in place of the type's", integer(sizeLimits.vcpus))
    .option('--memory-mb <n>', "memory in MiB in place of the type's", integer(sizeLimits.memoryMb))
    .option('--disk-gb <n>', "disk in GiB in place of the type's", integer(sizeLimits.diskGb))
    .option('--vpc <id>', 'private network; the default one when absent', resourceId)
    .option('--subnet <id>', 'subnet to get the address from; implies its VPC', resourceId)
    .option('--security-group <id>', 'firewall rules; may be repeated', resourceIds)
    .option('--ssh-key <id>', 'key that may log in; may be repeated', resourceIds)
    .option('--user-data-file <file>', 'first-boot script (#!) or cloud-init document, at most 64 KiB; - for stdin')
    .option('-f, --file <file>', "the API's document in YAML or JSON, - for stdin; other options win over it")
    .addOption(
      new Option('--on-panic <what>', "when the guest's kernel panics: restart it, stop it, or leave it").choices(
        panicPolicies,
      ),
    )
    .addOption(
      new Option('--on-capacity <what>', 'when no host has room now: wait for it, or fail').choices(onCapacity),
    )
    .option('--dry-run', 'check everything and show what would come of it; nothing is kept')
    .option('--idempotency-key <key>', 'name of this request, so that running the command again makes no second one')
  withOutput(withBootWait(command, 'ready')).action(async (flags: CreateFlags, self: Command) => {
    const declared = flags.file === undefined ? null : await readOneInstance(io, flags.file)
    const body = await createRequest(io, flags, declared, self)
    const session = openSession(io, self)
    warnOfUserData(io, body.spec.user_data)
    try {
      await create(session, body, flags)
    } catch (error) {
      throw declared === null ? error : inTermsOfFile(error, declared, body)
    }
  })
  withExamples(command, [
    'berth instance create --name web-1 --type micro --image micro --ssh-key key-001',
    'berth instance create -f web.yaml --name web-2 --label env=test',
    'berth instance create --type cx31 --image ubuntu-22.04 --dry-run',
    'berth instance create --type micro --image micro --on-capacity fail --wait running -q',
  ])
}

/** What is not base64 is left to the server to refuse. */
function warnOfUserData(io: CliIo, userData: unknown): void {
  const doubt = typeof userData === 'string' ? userDataDoubt(Buffer.from(userData, 'base64')) : null
  if (doubt !== null) io.stderr.write(`berth: warning: ${doubt}\n`)
}

async function create(session: Session, body: Schemas['InstanceCreate'], flags: CreateFlags): Promise<void> {
  const { io } = session
  if (flags.dryRun) return dryRun(session, body, flags)
  const startedAt = io.now()
  const params = flags.idempotencyKey === undefined ? {} : { header: { 'idempotency-key': flags.idempotencyKey } }
  const answer = await call(session, session.client.POST('/v1/instances', { params, body }))
  // 200 is the answer to a dry run only
  const created = answer as Schemas['InstanceCreated']
  io.stderr.write(`creating ${describe(created)}\n`)
  if (flags.wait === 'none' || flags.wait === false) return printInstance(io, flags, created)
  const until = flags.wait === 'ready' ? 'ready' : 'ended'
  const instance = await followOperation(session, created.operation_id, until, new Patience(session, flags.timeout))
  io.stderr.write(`${instance.metadata.name} is ${flags.wait} after ${formatSeconds(io.now() - startedAt)}\n`)
  warnOfShortage(io, instance)
  printInstance(io, flags, instance)
}

/** That its subnet had no public address for it fails nothing, and is easily missed. */
function warnOfShortage(io: CliIo, { status }: Schemas['Instance']): void {
  if (status.reason === 'no_public_addresses') io.stderr.write(`warning: no public address: ${status.message}\n`)
}

/** Exit code 1 when the create would fail for want of room. */
async function dryRun(session: Session, body: Schemas['InstanceCreate'], flags: CreateFlags): Promise<void> {
  const params = { query: { dry_run: true } }
  const answer = await call(session, session.client.POST('/v1/instances', { params, body }))
  const outcome = answer as Schemas['InstanceDryRun'] // 201 is the answer to a create only
  print(session.io, flags, outcome, () => renderDryRun(outcome))
  if (outcome.placement.host_id === '' && body.on_capacity === 'fail') {
    throw new CliError(exitCodes.failed, `it would fail: ${outcome.placement.message}`)
  }
}

async function readOneInstance(io: CliIo, file: string): Promise<DeclaredDocument> {
  const { readDeclaredFile } = await import('../apply/declared-file.ts') // YAML is loaded for this alone
  const [document, ...others] = await readDeclaredFile(io, file)
  if (document === undefined) throw new CliError(exitCodes.usage, `${nameOf(file)} has no document`)
  if (others.length > 0) {
    throw new CliError(exitCodes.usage, `${nameOf(file)} has ${others.length + 1} documents; berth apply takes several`)
  }
  const { kind = 'Instance', ...value } = document.value
  if (kind !== 'Instance') throw fileFault(document, '/kind', 'is not Instance; berth apply takes other kinds')
  for (const part of ['metadata', 'spec']) {
    if (part in value && !isRecord(value[part])) throw fileFault(document, `/${part}`, 'is not an object')
  }
  return { ...document, value }
}

/** The body of the request: the file's document with what the options say in its place. */
async function createRequest(
  io: CliIo,
  flags: CreateFlags,
  declared: DeclaredDocument | null,
  command: Command,
): Promise<Schemas['InstanceCreate']> {
  const given = await givenSpec(io, flags)
  const { metadata = {}, spec = {}, ...rest } = declared?.value ?? {}
  if (declared === null) {
    for (const name of ['type', 'image'] as const) {
      if (flags[name] === undefined) command.error(`error: required option '--${name} <id>' not specified`)
    }
  }
  const own = metadataOf(flags).metadata
  const labels = { ...(isRecord(metadata) && isRecord(metadata.labels) ? metadata.labels : {}), ...own?.labels }
  const merged = {
    ...Object(metadata),
    ...own,
    ...(own?.labels === undefined ? {} : { labels }),
  }
  const body = {
    ...rest,
    ...(Object.keys(merged).length === 0 ? {} : { metadata: merged }),
    spec: { ...Object(spec), ...given },
    ...(flags.onCapacity === undefined ? {} : { on_capacity: flags.onCapacity }),
  }
  // what a file says is the server's to judge: it knows the names of the fields and says which is meant
  return body as Schemas['InstanceCreate']
}

async function givenSpec(io: CliIo, flags: CreateFlags): Promise<Partial<Schemas['InstanceCreate']['spec']>> {
  const { userDataFile: file } = flags
  if (file === '-' && flags.file === '-') {
    throw new CliError(exitCodes.usage, 'only one of --file and --user-data-file can be standard input')
  }
  const userData = file === undefined ? undefined : (await readInput(io, file, userDataMaxBytes)).toString('base64')
  return {
    ...(flags.type === undefined ? {} : { type: flags.type }),
    ...(flags.image === undefined ? {} : { image: flags.image }),
    ...(flags.vcpus === undefined ? {} : { vcpus: flags.vcpus }),
    ...(flags.memoryMb === undefined ? {} : { memory_mb: flags.memoryMb }),
    ...(flags.diskGb === undefined ? {} : { disk_gb: flags.diskGb }),
    ...(flags.vpc === undefined ? {} : { vpc_id: flags.vpc }),
    ...(flags.subnet === undefined ? {} : { subnet_id: flags.subnet }),
    ...(flags.securityGroup === undefined ? {} : { security_groups: flags.securityGroup }),
    ...(flags.sshKey === undefined ? {} : { ssh_key_ids: flags.sshKey }),
    ...(userData === undefined ? {} : { user_data: userData }),
    ...(flags.onPanic === undefined ? {} : { on_panic: flags.onPanic }),
  }
}
