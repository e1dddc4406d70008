/**
 * Bounds on what comes from outside, all in one place; docs/limits.md lists them. Times are milliseconds. What has a
 * bound of its own in the contract (names, labels, user data, lists) stands in the schemas.
 */
export interface Limits {
  /** Body of a request. The largest useful one carries 64 KiB of user data. */
  bodyBytes: number
  /** Bodies of more than `largeBodyBytes`, or of a length not told, that are received at the same time. */
  largeBodies: number
  largeBodyBytes: number
  /** Levels of objects and arrays in a body. */
  jsonDepth: number
  /** Values in a body, at all levels together. */
  jsonValues: number
  /** Request line and headers together. */
  headerBytes: number
  headers: number
  urlBytes: number
  /** Time for the headers to arrive, and for the whole request. How long an answer takes is not in it. */
  headersMs: number
  requestMs: number
  /** How often connections are looked at for these two. */
  checkMs: number
  /** Time a connection may stay without a request after one was answered. */
  keepAliveMs: number
  /** Time in which a client must take at least something of an answer that is ready. */
  stalledAnswerMs: number
  /** Bytes of all answers that are ready but not taken; beyond it the oldest ones go, with their connections. */
  untakenBytes: number
  /** Connections at the same time, also at most half of the process's file descriptors; more are closed at once. */
  connections: number
  /** Requests on one connection that are not answered yet; the connection of a client that sends more is closed. */
  pipelinedRequests: number
  /** Requests of clients that wait for something to happen (`wait_for`, `wait`); more are answered with 429. */
  waits: number
}

export const defaultLimits: Limits = {
  bodyBytes: 1024 * 1024,
  largeBodies: 100,
  largeBodyBytes: 16 * 1024,
  jsonDepth: 32,
  jsonValues: 10_000,
  headerBytes: 16 * 1024,
  headers: 100,
  urlBytes: 8 * 1024,
  headersMs: 20_000,
  requestMs: 60_000,
  checkMs: 5_000,
  keepAliveMs: 72_000,
  stalledAnswerMs: 30_000,
  untakenBytes: 128 * 1024 * 1024,
  connections: 10_000,
  pipelinedRequests: 32,
  waits: 5_000,
}
