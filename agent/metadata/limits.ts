/** What the metadata service of a host bounds; docs/metadata.md has them with what a guest sees beyond. */
export interface MetadataLimits {
  /** Connections of one guest, and of all guests of the host. */
  guestConnections: number
  connections: number
  /** What a guest may ask for over time, a connection counting as a request: so many at once, so many a second after. */
  burst: number
  perSecond: number
  /** How far a guest may fall behind that; more is forgiven. It is heard again when it has caught up. */
  debt: number
  /** Bytes of a request's head, and of its body. */
  headBytes: number
  bodyBytes: number
  /** Time for the head of a request, for all of it, between two requests, and for a connection; milliseconds. */
  headMs: number
  requestMs: number
  idleMs: number
  connectionMs: number
  /** How often the first two are looked at, milliseconds. */
  checkMs: number
}

export const defaultMetadataLimits: MetadataLimits = {
  guestConnections: 8,
  connections: 512,
  burst: 200, // cloud-init reads about 60 values of EC2's tree one by one
  perSecond: 50,
  debt: 250, // five seconds
  headBytes: 8192,
  bodyBytes: 32_768, // a ready report with 2 KiB of output, escaped at its worst
  headMs: 5000,
  requestMs: 10_000,
  idleMs: 5000,
  connectionMs: 60_000,
  checkMs: 1000,
}
