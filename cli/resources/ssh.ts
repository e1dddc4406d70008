import { access } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { join, resolve } from 'node:path'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, InvalidArgumentError } from 'commander'
import { instanceReference } from '../command/arguments.ts'
import { CliError, exitCodes, PassedExit } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { describe } from '../live/follow.ts'
import { call, openSession, type Session } from '../session.ts'
import { findInstance } from './instance-lookup.ts'

type Instance = Schemas['Instance']

interface SshFlags {
  identity?: string
  login?: string
  dataDir?: string
}

const userPattern = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/
const netnsPattern = /^berth-[0-9a-z]{6}-[0-9a-z]{12}$/

/** `berth ssh`: the system's ssh, in the network of the instance. */
export function addSshCommand(program: Command, io: CliIo): void {
  program
    .command('ssh')
    .description('log in to an instance, or run a command in it; exits with the code of ssh')
    .argument('<name|id>', 'name or id of an instance', instanceReference)
    .argument('[command...]', 'command to run there, after --')
    .option('-i, --identity <file>', 'private key; key-001 of the data directory when absent')
    .option('-l, --login <user>', "account; the image's own when absent", loginName)
    .option('--data-dir <dir>', 'data directory of berth dev (env: BERTH_DATA_DIR, default: ./.berth)')
    .addHelpText(
      'after',
      `
Examples:
  berth ssh web-1
  berth ssh web-1 -- uname -a
  berth ssh -i ~/.ssh/id_ed25519 -l debian web-1

On the host of the instance it goes through the instance's private network,
which takes root; elsewhere to its public address.`,
    )
    .action(async (reference: string, words: string[], flags: SshFlags, command: Command) => {
      const session = openSession(io, command)
      const instance = await findInstance(session, reference)
      const argv = await commandLine(session, instance, words, flags)
      throw new PassedExit(await io.spawnInherit(argv))
    })
}

async function commandLine(session: Session, instance: Instance, words: readonly string[], flags: SshFlags) {
  const { status } = instance
  if (status.state !== 'running') {
    throw new CliError(exitCodes.conflict, `${describe(instance)} is ${status.state}, not running`)
  }
  const namespace = await namespaceHere(session.io, status.network.netns)
  if (namespace !== null && !session.io.isRoot) throw needsRoot(session.io)
  const address = namespace === null ? await publicAddress(session, instance) : status.private_ip
  if (!isIPv4(address))
    throw new CliError(exitCodes.failed, `the server gave an address of an unknown form: ${address}`)
  const user = flags.login ?? (await defaultUser(session, instance))
  const data = resolve(flags.dataDir ?? (session.io.env.BERTH_DATA_DIR || './.berth'))
  const ssh = await sshCommand({ alias: instance.id, target: `${user}@${address}`, words, data, flags })
  return namespace === null ? ssh : ['nsenter', `--net=${namespace}`, '--', ...ssh]
}

/** The path of the instance's network namespace when it is on this machine, else null. */
async function namespaceHere(io: CliIo, netns: string): Promise<string | null> {
  if (netns === '') return null
  // it becomes a path for root
  if (!netnsPattern.test(netns)) {
    throw new CliError(exitCodes.failed, `the server gave a namespace of an unknown form: ${netns}`)
  }
  const path = join(io.netnsDirectory, netns)
  return (await exists(path)) ? path : null
}

async function publicAddress(session: Session, instance: Instance): Promise<string> {
  const { public_ip: address, host_id: id } = instance.status
  if (address !== '') return address
  const host = await call(session, session.client.GET('/v1/hosts/{id}', { params: { path: { id } } }))
  if (host.status.hypervisor === 'simulated') {
    throw new CliError(exitCodes.failed, `${describe(instance)} is simulated: there is no machine to log in to`)
  }
  throw new CliError(exitCodes.failed, `${describe(instance)} cannot be reached from this machine`, {
    details: [`its network is on host ${host.metadata.name} and it has no public address`, 'run berth ssh there'],
  })
}

async function defaultUser(session: Session, instance: Instance): Promise<string> {
  const params = { path: { id: instance.spec.image } }
  const image = await call(session, session.client.GET('/v1/images/{id}', { params }))
  const { default_user: user } = image.spec
  if (!userPattern.test(user)) throw new CliError(exitCodes.failed, `image ${image.id} has no user; name one with -l`)
  return user
}

/** The argv of ssh. Host keys are kept under the id of the instance: addresses are used again. */
async function sshCommand(about: {
  alias: string
  target: string
  words: readonly string[]
  data: string
  flags: SshFlags
}): Promise<string[]> {
  const { alias, target, words, data, flags } = about
  const defaultKey = join(data, 'keys', 'key-001')
  const key = flags.identity ?? ((await exists(defaultKey)) ? defaultKey : null)
  const options = [
    `HostKeyAlias=${alias}`,
    // without a data directory, as on another machine, the user's own file serves
    ...((await exists(data)) ? [`UserKnownHostsFile=${quoted(join(data, 'known_hosts'))}`] : []),
    'StrictHostKeyChecking=accept-new',
    'ConnectTimeout=10',
    // else an agent with many keys has used up the attempts before this one is tried
    ...(key === null ? [] : ['IdentitiesOnly=yes']),
  ]
  return [
    'ssh',
    ...options.flatMap((option) => ['-o', option]),
    ...(key === null ? [] : ['-i', key]),
    // ssh would take words of the command that start with - for its own options
    '--',
    target,
    ...words,
  ]
}

/** A file name as ssh_config(5) reads it: in quotes, % for a token. */
function quoted(file: string): string {
  return `"${file.replaceAll('%', '%%')}"`
}

function needsRoot(io: CliIo): CliError {
  // sudo drops the environment
  const kept = ['BERTH_SERVER', 'BERTH_DATA_DIR'].filter((name) => io.env[name])
  const preserve = kept.length === 0 ? [] : [`--preserve-env=${kept.join(',')}`]
  const line = ['sudo', ...preserve, ...io.argv].map(shellWord).join(' ')
  return new CliError(exitCodes.needsRoot, 'the private network of an instance can be entered by root only. Run:', {
    details: [line],
  })
}

function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

function loginName(text: string): string {
  if (!userPattern.test(text)) throw new InvalidArgumentError('It must be the name of an account.')
  return text
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
