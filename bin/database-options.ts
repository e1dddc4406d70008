import { type Command, Option } from 'commander'

const dataDirOption = () => new Option('--data-dir <dir>', 'data directory').env('BERTH_DATA_DIR').default('./.berth')

/** `berth database`: what is done with the SQLite file itself, on the machine that has it. */
export function addDatabaseCommands(program: Command): void {
  const group = program
    .command('database')
    .description('back up, check and restore the SQLite database of this machine')
    .addHelpText('after', '\nA PostgreSQL database is backed up with its own tools: pg_dump, pg_basebackup.')
  group
    .command('backup')
    .description('write a copy of the database; the server may be running')
    .argument('<file>', 'where the copy goes; it appears when it is whole')
    .option('--force', 'replace a file that exists', false)
    .addOption(dataDirOption())
    .addHelpText('after', '\nExamples:\n  berth database backup /backup/berth-$(date +%F).db')
    .action(async (file: string, flags: { dataDir: string; force: boolean }) => {
      const { backupDatabase } = await import('./database-command.ts')
      process.stdout.write(`${await backupDatabase(file, flags)}\n`)
    })
  group
    .command('check')
    .description('check a database or a backup of one')
    .argument('<file>')
    .action(async (file: string) => {
      const { checkDatabase } = await import('./database-command.ts')
      process.stdout.write(`${checkDatabase(file)}\n`)
    })
  group
    .command('restore')
    .description('put a backup in the place of the database; the server must not be running')
    .argument('<file>')
    .addOption(dataDirOption())
    .action(async (file: string, flags: { dataDir: string }) => {
      const { restoreDatabase } = await import('./database-command.ts')
      process.stdout.write(`${await restoreDatabase(file, flags)}\n`)
    })
}
