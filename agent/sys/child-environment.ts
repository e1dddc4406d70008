/** Where programs are when nobody says so. */
const usualPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * The whole environment of the commands and processes that are started here: where programs are, the time zone of their
 * logs, and no language of ours in what they print. Ours has more in it, such as the password of the database, and a
 * process's environment is read by its user (proc_pid_environ(5)). A program that needs more is given it by name.
 */
export function childEnvironment({ PATH = usualPath, TZ }: NodeJS.ProcessEnv = process.env): Record<string, string> {
  return { PATH, LC_ALL: 'C', ...(TZ === undefined ? {} : { TZ }) }
}
