/** What prom-client asks of a metric that it prints. */
interface Printed {
  metricName: string
  labels: Record<string, string | number>
  value: number
}

interface Series {
  counts: number[]
  sum: number
  count: number
}

/** Upper ends of the buckets, seconds. */
const upperBounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Status of a request whose caller went before the answer began. */
export const abortedStatus = 0

/** Durations of the requests of one route and method. */
export class RouteDurations {
  readonly method: string
  readonly route: string
  readonly #series = new Map<number, Series>()

  constructor(method: string, route: string) {
    this.method = method
    this.route = route
  }

  /** Count one request; `status` is what it was answered with, or `abortedStatus`. */
  observe(status: number, seconds: number): void {
    let series = this.#series.get(status)
    if (series === undefined) {
      series = { counts: upperBounds.map(() => 0), sum: 0, count: 0 }
      this.#series.set(status, series)
    }
    series.sum += seconds
    series.count++
    for (let i = 0; i < upperBounds.length; i++) {
      if (seconds > (upperBounds[i] ?? 0)) continue
      series.counts[i] = (series.counts[i] ?? 0) + 1
      return
    }
  }

  /** The lines of this route under a metric's name. */
  print(name: string): Printed[] {
    const lines: Printed[] = []
    for (const [status, series] of this.#series) {
      const labels = {
        method: this.method,
        route: this.route,
        status: status === abortedStatus ? 'aborted' : String(status),
      }
      let below = 0
      upperBounds.forEach((le, i) => {
        below += series.counts[i] ?? 0
        lines.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: below })
      })
      lines.push({ metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: series.count })
      lines.push({ metricName: `${name}_sum`, labels, value: series.sum })
      lines.push({ metricName: `${name}_count`, labels, value: series.count })
    }
    return lines
  }
}

/**
 * The histogram of request durations. It is not prom-client's, which builds a key from the labels at every observation:
 * this one is written for each request, so a route keeps its own series and an observation is a few additions
 * (docs/decisions/0020). prom-client's registry prints it as one of its own.
 */
export class RequestDurations {
  readonly name = 'berth_http_request_duration_seconds'
  readonly help = 'Time from the head of a request to the end of its answer; held requests are not in it'
  readonly type = 'histogram'
  readonly aggregator = 'sum'
  readonly labelNames = ['method', 'route', 'status'] as const
  readonly #routes: RouteDurations[] = []

  /** The part of a route, to be kept and written to. A route that is registered again continues. */
  route(method: string, route: string): RouteDurations {
    const known = this.#routes.find((candidate) => candidate.method === method && candidate.route === route)
    if (known !== undefined) return known
    const fresh = new RouteDurations(method, route)
    this.#routes.push(fresh)
    return fresh
  }

  /** Called by the registry. */
  async get() {
    const values = this.#routes.flatMap((route) => route.print(this.name))
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values }
  }

  /** Forget everything; called by the registry. */
  reset(): void {
    this.#routes.length = 0
  }
}
