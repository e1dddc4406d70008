import { readyTimeoutSeconds } from '@berth/contract/images/bounds.ts'
import { findChecksum, pathOf } from '@berth/contract/images/checksum.ts'
import { sizeLimits } from '@berth/contract/instances/bounds.ts'
import type { Schemas } from '@berth/sdk/client.ts'
import { type Command, Option } from 'commander'
import { integer, readInput, resourceId } from '../command/arguments.ts'
import { withExamples } from '../command/help.ts'
import { type MetadataFlags, metadataOf, withMetadata } from '../command/labels.ts'
import { addListCommand, type Columns } from '../command/list.ts'
import { addDeleteCommand, addShowCommand, addUpdateCommand } from '../command/resource.ts'
import { CliError, exitCodes } from '../exit-codes.ts'
import type { CliIo } from '../io.ts'
import { type OutputFlags, print, withOutput } from '../output/output.ts'
import { formatLabels, formatMib, renderFields, renderTable } from '../output/table.ts'
import { call, callForAnswer, openSession, type Session } from '../session.ts'

type Image = Schemas['Image']

/** Longest checksum file that is read, bytes. */
const maxChecksumFileBytes = 1024 * 1024

const columns: Columns<Image> = () => [
  { header: 'ID', cell: (image) => image.id },
  { header: 'STATE', cell: (image) => image.status.state },
  { header: 'SIZE', cell: sizeOf },
  { header: 'MIN DISK', cell: (image) => `${image.spec.min_disk_gb} GiB` },
  { header: 'FIRMWARE', cell: (image) => image.status.firmware },
  { header: 'USER', cell: (image) => image.spec.default_user },
  { header: 'TITLE', cell: (image) => image.spec.title },
]

interface CreateFlags extends MetadataFlags, OutputFlags {
  id: string
  url: string
  checksum?: string
  checksumFile?: string
  sha256?: string
  minDiskGb: number
  defaultUser: string
  title?: string
  network?: 'static' | 'dhcp'
  datasource?: 'disk' | 'network'
  readyTimeoutSeconds?: number
}

/** `berth image`: what instances boot from. The commands that work on a host's files are added by bin/. */
export function addImageCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('image').description('images that instances boot from'),
    [
      'berth image list',
      'berth image show ubuntu-22.04',
      'berth image create --id team-base --url https://images.example/base.qcow2 --checksum sha512:HEX --min-disk-gb 4 --default-user admin',
    ],
    `An image that is missing and has a source is downloaded when an instance first
needs it. Only what create made can be changed and deleted here: the others are
in the catalogue file, or in the images directory of a host.`,
  )
  addCreateCommand(group, io)
  addListCommand(group, io, {
    nouns: 'images',
    columns,
    labelled: true,
    page: (session, query) => call(session, session.client.GET('/v1/images', { params: { query } })),
    watch: { kind: 'image', get: async (session, id) => (await get(session, id)).data },
    examples: ['berth image list', 'berth image list -l team=platform -q', 'berth image list --watch'],
  })
  addShowCommand(group, io, {
    noun: 'an image',
    versioned: true,
    get,
    render: (image) =>
      renderFields([
        ['id', image.id],
        ['name', image.metadata.name],
        ['labels', formatLabels(image.metadata.labels)],
        ['title', image.spec.title],
        ['state', image.status.state],
        ['reason', image.status.reason],
        ['size', sizeOf(image)],
        ['source', image.spec.source_url],
        ['checksum', image.spec.checksum],
        ['min disk', `${image.spec.min_disk_gb} GiB`],
        ['firmware', image.status.firmware],
        ['architecture', image.spec.architecture],
        ['user', image.spec.default_user],
        ['network', image.spec.network],
        ['datasource', image.spec.datasource],
        ['ready timeout', `${image.spec.ready_timeout_seconds} s`],
      ]),
    examples: ['berth image show ubuntu-22.04', 'berth image show ubuntu-22.04 -o json'],
  })
  addUpdateCommand(group, io, {
    noun: 'an image',
    columns,
    get,
    patch: (session, id, body, header) =>
      call(session, session.client.PATCH('/v1/images/{id}', { params: { path: { id }, header }, body })),
    examples: ['berth image update team-base --label team=platform'],
  })
  addDeleteCommand(group, io, {
    noun: 'an image',
    remove: (session, id) => call(session, session.client.DELETE('/v1/images/{id}', { params: { path: { id } } })),
    examples: ['berth image delete team-base'],
  })
}

function addCreateCommand(group: Command, io: CliIo): void {
  const create = group
    .command('create')
    .description('make an image known that hosts download')
    .requiredOption('--id <id>', 'its name, as team-base', resourceId)
    .requiredOption('--url <url>', 'where a qcow2 or raw disk is downloaded from, http or https')
    .option('--checksum <text>', 'checksum of that file: sha512:HEX, sha256:HEX, or a line of a checksum file')
    .option('--checksum-file <file>', 'checksum file with a line for it, such as SHA512SUMS; "-" is standard input')
    .option('--sha256 <hex>', 'its SHA-256; the same as --checksum sha256:HEX')
    .requiredOption('--min-disk-gb <n>', 'smallest disk it fits on, GiB', integer(sizeLimits.diskGb))
    .requiredOption('--default-user <name>', 'account that gets the SSH keys')
    .option('--title <text>', 'what people see; the id when absent')
    .addOption(new Option('--network <how>', 'how the guest is told its address').choices(['static', 'dhcp']))
    .addOption(new Option('--datasource <where>', 'where cloud-init finds its seed').choices(['disk', 'network']))
    .option(
      '--ready-timeout-seconds <n>',
      `time its guests have for their first boot; ${readyTimeoutSeconds.default} when absent`,
      integer(readyTimeoutSeconds),
    )
  withOutput(withMetadata(create)).action(async (flags: CreateFlags, command: Command) => {
    const session = openSession(io, command)
    const { id, url, minDiskGb, defaultUser, title, network, datasource, readyTimeoutSeconds } = flags
    const spec = {
      ...{ source_url: url, min_disk_gb: minDiskGb, default_user: defaultUser },
      ...(await checksumOf(io, flags)),
      ...(title === undefined ? {} : { title }),
      ...(network === undefined ? {} : { network }),
      ...(datasource === undefined ? {} : { datasource }),
      ...(readyTimeoutSeconds === undefined ? {} : { ready_timeout_seconds: readyTimeoutSeconds }),
    }
    const body = { ...metadataOf(flags), id, spec }
    const image = await call(session, session.client.POST('/v1/images', { body }))
    print(io, flags, image, () => renderTable(columns(io.now()), [image]))
  })
  withExamples(create, [
    'berth image create --id team-base --url https://images.example/base.qcow2 --checksum sha512:HEX --min-disk-gb 4 --default-user admin',
    'curl -fsS https://images.example/SHA512SUMS | berth image create --id team-base --url https://images.example/base.qcow2 --checksum-file - --min-disk-gb 4 --default-user admin',
  ])
}

/** The field of the body that says what the file must be. Throws CliError (usage) unless exactly one option does. */
async function checksumOf(io: CliIo, flags: CreateFlags): Promise<{ checksum: string } | { sha256: string }> {
  const { checksum, checksumFile, sha256, url } = flags
  const given = [checksum, checksumFile, sha256].filter((each) => each !== undefined)
  if (given.length !== 1) {
    throw new CliError(exitCodes.usage, 'give one of --checksum, --checksum-file and --sha256')
  }
  if (checksum !== undefined) return { checksum }
  if (checksumFile === undefined) return { sha256: sha256 ?? '' }
  const text = (await readInput(io, checksumFile, maxChecksumFileBytes)).toString('utf8')
  const found = findChecksum(text, URL.canParse(url) ? pathOf(url) : url)
  if ('fault' in found) throw new CliError(exitCodes.usage, `${checksumFile} ${found.fault}`)
  return found
}

function get(session: Session, id: string) {
  return callForAnswer(session, session.client.GET('/v1/images/{id}', { params: { path: { id } } }))
}

function sizeOf({ status }: Image): string {
  return formatMib(status.state === 'downloading' ? status.received_bytes : status.size_bytes)
}
