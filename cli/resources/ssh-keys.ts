import { holdsPrivateKey } from '@berth/contract/instances/public-key-text.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { readInput } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withIdAndMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand } from '../command/resource.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatAge, formatLabels, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'

type SshKey = Schemas['SshKey']

/** Longest public key file that is read, bytes; the API takes a line of 4,096. */
const maxKeyFileBytes = 16 * 1024

const columns: Columns<SshKey> = (now) => [
  { header: 'ID', cell: (key) => key.id },
  { header: 'NAME', cell: (key) => key.metadata.name },
  { header: 'FINGERPRINT', cell: (key) => key.status.fingerprint },
  { header: 'AGE', cell: (key) => formatAge(key.metadata.created_at, now) },
]

/** `berth ssh-key`: the public keys that instances can be made with. */
export function addSshKeyCommands(program: Command, io: CliIo): void {
  const group = withExamples(program.command('ssh-key').description('SSH keys that instances are made with'), [
    'berth ssh-key create --id key-laptop --file ~/.ssh/id_ed25519.pub',
    'berth ssh-key list',
    'berth instance create --type micro --image micro --ssh-key key-laptop',
  ])

  const create = withIdAndMetadata(group.command('create').description('register a public key'), 'key').requiredOption(
    '--file <file>',
    'the public key, as ~/.ssh/id_ed25519.pub; - for standard input',
  )
  withOutput(create).action(async (flags: MetadataFlags & OutputFlags & { file: string }, command: Command) => {
    const publicKey = (await readInput(io, flags.file, maxKeyFileBytes)).toString('utf8').trim()
    // it must not leave this machine, also not to be refused
    if (holdsPrivateKey(publicKey)) {
      throw new CliError(exitCodes.usage, `${flags.file} is a private key; give the .pub file`)
    }
    const session = openSession(io, command)
    const body = { ...metadataOf(flags), spec: { public_key: publicKey } }
    const key = await call(session, session.client.POST('/v1/ssh-keys', { body }))
    print(io, flags, key, () => renderTable(columns(io.now()), [key]))
  })
  withExamples(create, [
    'berth ssh-key create --id key-laptop --file ~/.ssh/id_ed25519.pub',
    'ssh-add -L | head -1 | berth ssh-key create --file -',
  ])

  addListCommand(group, io, {
    nouns: 'SSH keys',
    columns,
    labelled: true,
    page: (session, query) => call(session, session.client.GET('/v1/ssh-keys', { params: { query } })),
    watch: { kind: 'ssh_key', get: async (session, id) => (await get(session, id)).data },
    examples: ['berth ssh-key list', 'berth ssh-key list -l team=platform -q'],
  })
  addShowCommand(group, io, {
    noun: 'an SSH key',
    versioned: true,
    get,
    render: (key) =>
      renderFields([
        ['id', key.id],
        ['name', key.metadata.name],
        ['labels', formatLabels(key.metadata.labels)],
        ['created', key.metadata.created_at],
        ['fingerprint', key.status.fingerprint],
        ['public key', key.spec.public_key],
      ]),
    examples: ['berth ssh-key show key-laptop'],
  })
  addUpdateCommand(group, io, {
    noun: 'an SSH key',
    columns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/ssh-keys/{id}', { params: { path: { id }, header }, body })),
    examples: ['berth ssh-key update key-laptop --name old-laptop --label team=platform'],
  })
  addDeleteCommand(group, io, {
    noun: 'an SSH key',
    remove: (session, id) => call(session, session.client.DELETE('/v1/ssh-keys/{id}', { params: { path: { id } } })),
    examples: ['berth ssh-key delete key-laptop'],
  })
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/ssh-keys/{id}', { params: { path: { id } } }))
}
