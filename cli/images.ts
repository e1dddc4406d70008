import type { Schemas } from '@berth/sdk/client.ts'
import type { Command } from 'commander'
import { withExamples } from './help.ts'
import type { CliIo } from './io.ts'
import { addListCommand, type Columns } from './list-command.ts'
import { addShowCommand } from './resource-commands.ts'
import { call, callForAnswer } from './session.ts'
import { formatMib, renderFields } from './table.ts'

type Image = Schemas['Image']

const columns: Columns<Image> = () => [
  { header: 'ID', cell: (image) => image.id },
  { header: 'STATE', cell: (image) => image.status.state },
  { header: 'SIZE', cell: sizeOf },
  { header: 'MIN DISK', cell: (image) => `${image.spec.min_disk_gb} GiB` },
  { header: 'USER', cell: (image) => image.spec.default_user },
  { header: 'TITLE', cell: (image) => image.spec.title },
]

/** `berth image`: what instances boot from. The commands that work on a host's files are added by bin/. */
export function addImageCommands(program: Command, io: CliIo): void {
  const group = withExamples(
    program.command('image').description('images that instances boot from'),
    ['berth image list', 'berth image show ubuntu-22.04'],
    `An image that is missing and has a source is downloaded when an instance first
needs it.`,
  )
  addListCommand(group, io, {
    nouns: 'images',
    columns,
    labelled: false,
    page: (session, query) => call(session, session.client.GET('/v1/images', { params: { query } })),
    examples: ['berth image list', 'berth image list -q'],
  })
  addShowCommand(group, io, {
    noun: 'an image',
    versioned: false,
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/images/{id}', { params: { path: { id } } })),
    render: (image) =>
      renderFields([
        ['id', image.id],
        ['title', image.spec.title],
        ['state', image.status.state],
        ['reason', image.status.reason],
        ['size', sizeOf(image)],
        ['source', image.spec.source_url],
        ['sha256', image.spec.sha256],
        ['min disk', `${image.spec.min_disk_gb} GiB`],
        ['architecture', image.spec.architecture],
        ['user', image.spec.default_user],
        ['network', image.spec.network],
      ]),
    examples: ['berth image show ubuntu-22.04', 'berth image show ubuntu-22.04 -o json'],
  })
}

function sizeOf({ status }: Image): string {
  return formatMib(status.state === 'downloading' ? status.received_bytes : status.size_bytes)
}
