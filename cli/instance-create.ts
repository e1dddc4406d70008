import { sizeLimits, userDataMaxBytes } from '@berth/contract/instances.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { integer, readInput, repeated, resourceId, timeoutSeconds } from './arguments.ts'
import { describe, followOperation, Patience } from './follow.ts'
import { instanceColumns } from './instance-view.ts'
import type { CliIo } from './io.ts'
import { type MetadataFlags, metadataOf, withMetadata } from './metadata.ts'
import { type OutputFlags, print, withOutput } from './output.ts'
import { call, openSession } from './session.ts'
import { formatSeconds, renderTable } from './table.ts'

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
  type: string
  image: string
  vcpus?: number
  memoryMb?: number
  diskGb?: number
  vpc?: string
  subnet?: string
  securityGroup?: string[]
  sshKey?: string[]
  userDataFile?: string
  wait: WaitFlag
  timeout: number
}

/** `berth instance create`. */
export function addInstanceCreateCommand(group: Command, io: CliIo): void {
  const command = withMetadata(group.command('create').description('create an instance and wait until it is ready'))
    .requiredOption('--type <id>', 'size; see berth type list', resourceId)
    .requiredOption('--image <id>', 'what it boots from; see berth image list', resourceId)
    .option('--vcpus <n>', "virtual CPUs in place of the type's", integer(sizeLimits.vcpus))
    .option('--memory-mb <n>', "memory in MiB in place of the type's", integer(sizeLimits.memoryMb))
    .option('--disk-gb <n>', "disk in GiB in place of the type's", integer(sizeLimits.diskGb))
    .option('--vpc <id>', 'private network; the default one when absent', resourceId)
    .option('--subnet <id>', 'subnet to get the address from; implies its VPC', resourceId)
    .option('--security-group <id>', 'firewall rules; may be repeated', resourceIds)
    .option('--ssh-key <id>', 'key that may log in; may be repeated', resourceIds)
    .option('--user-data-file <file>', 'first-boot script (#!) or cloud-init document, at most 64 KiB; - for stdin')
  withOutput(withBootWait(command, 'ready')).action(async (flags: CreateFlags, self: Command) => {
    const session = openSession(io, self)
    const body = await createRequest(io, flags)
    const startedAt = io.now()
    const created = await call(session, session.client.POST('/v1/instances', { body }))
    io.stderr.write(`creating ${describe(created)}\n`)
    if (flags.wait === 'none' || flags.wait === false) {
      return print(io, flags, created, () => renderTable(instanceColumns(io.now()), [created]))
    }
    const until = flags.wait === 'ready' ? 'ready' : 'ended'
    const instance = await followOperation(session, created.operation_id, until, new Patience(session, flags.timeout))
    io.stderr.write(`${instance.metadata.name} is ${flags.wait} after ${formatSeconds(io.now() - startedAt)}\n`)
    print(io, flags, instance, () => renderTable(instanceColumns(io.now()), [instance]))
  })
}

const resourceIds = (text: string, previous?: string[]) => repeated(resourceId(text), previous)

async function createRequest(io: CliIo, flags: CreateFlags): Promise<Schemas['InstanceCreate']> {
  const { userDataFile: file } = flags
  const userData = file === undefined ? undefined : (await readInput(io, file, userDataMaxBytes)).toString('base64')
  return {
    ...metadataOf(flags),
    spec: {
      type: flags.type,
      image: flags.image,
      ...(flags.vcpus === undefined ? {} : { vcpus: flags.vcpus }),
      ...(flags.memoryMb === undefined ? {} : { memory_mb: flags.memoryMb }),
      ...(flags.diskGb === undefined ? {} : { disk_gb: flags.diskGb }),
      ...(flags.vpc === undefined ? {} : { vpc_id: flags.vpc }),
      ...(flags.subnet === undefined ? {} : { subnet_id: flags.subnet }),
      ...(flags.securityGroup === undefined ? {} : { security_groups: flags.securityGroup }),
      ...(flags.sshKey === undefined ? {} : { ssh_key_ids: flags.sshKey }),
      ...(userData === undefined ? {} : { user_data: userData }),
    },
  }
}
