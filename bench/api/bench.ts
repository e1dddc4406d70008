/** What every measurement of the API gets. */
export interface Bench {
  /** An empty directory of the benchmark. */
  directory: string
  /** Short runs: a look, not a figure to quote. */
  quick: boolean
  /** Print where the server's processor time went. */
  profile: boolean
  /** Instances in the large database. */
  instances: number
}
