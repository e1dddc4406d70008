import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { ServerConfig } from './config.ts'
import { defaultSettings } from './config.ts'
import type { Context } from './context.ts'
import { type Controller, startController } from './controllers/driver.ts'
import { placementPass } from './controllers/placement.ts'
import { retentionPass } from './controllers/retention.ts'
import { ensureExampleResources } from './domain/example-resources.ts'
import { registerHosts } from './domain/hosts/reports.ts'
import { parsePublicPools } from './domain/networks/public-pools.ts'
import { EventFeed } from './feed/event-feed.ts'
import { WaitSlots } from './feed/waiting.ts'
import { ServerMetrics } from './metrics/server-metrics.ts'
import { Readiness } from './readiness.ts'
import { buildApi } from './routes/all.ts'
import type { MigrationObserver, StoreObserver } from './store/observer.ts'
import { Store } from './store/store.ts'

const loopback = ['127.0.0.1', '::1', 'localhost']

export interface RunningServer {
  /** Base URL without a slash at the end. */
  url: string
  stop(): Promise<void>
}

/**
 * Start the control plane: store, then routes, then controllers; `stop` ends them in the reverse order. Acknowledged
 * work needs no stop to be safe.
 */
export async function startServer(config: ServerConfig, log: Logger): Promise<RunningServer> {
  if (!loopback.includes(config.listen.host)) {
    throw new Error(`there are no API tokens yet, so only ${loopback.join(', ')} may be listened on`)
  }
  const publicPools = parsePublicPools(config.publicPools ?? [])
  const now = config.now ?? Date.now
  const settings = { ...defaultSettings, ...config.settings }
  const metrics = new ServerMetrics(config.otherMetrics)
  const store = await Store.open(config.database, {
    now,
    observer: storeObserver(metrics, log),
    migrations: migrationLog(log),
    keepsReserve: true,
  })
  const feed = await EventFeed.open(store, log)
  const ctx: Context = {
    store,
    feed,
    log,
    metrics,
    readiness: new Readiness(store, settings.readyBoundMs),
    requestId: '',
    now,
    settings,
    waitSlots: new WaitSlots(settings.limits.waits),
    images: new Map(config.images.map((image) => [image.id, image])),
    instanceTypes: new Map(config.instanceTypes.map((type) => [type.id, type])),
    publicPools,
  }
  const app = await openHttp(ctx, config).catch(async (error) => {
    await store.close()
    throw error
  })

  const about = { periodMs: settings.controllerPeriodMs, log, metrics }
  const controllers: Controller[] = [
    startController('placement', about, placementPass(ctx)),
    startController('retention', about, retentionPass(ctx)),
  ]
  const stopWaking = store.onChange(() => controllers[0]?.wake())

  const address = app.server.address()
  const port = typeof address === 'object' && address !== null ? address.port : config.listen.port
  const host = config.listen.host === '::1' ? '[::1]' : config.listen.host
  return {
    url: `http://${host}:${port}`,
    async stop() {
      ctx.readiness.stop()
      if (settings.drainMs > 0) await delay(settings.drainMs)
      stopWaking()
      await Promise.all(controllers.map((controller) => controller.stop()))
      await app.close()
      feed.close()
      await store.close()
    },
  }
}

async function openHttp(ctx: Context, config: ServerConfig) {
  await registerHosts(
    ctx,
    config.hosts.map((host) => host.hostId),
  )
  if (config.examplePublicKey !== undefined) await ensureExampleResources(ctx, config.examplePublicKey)
  const app = await buildApi(ctx, config.hosts)
  try {
    await app.listen({ host: config.listen.host, port: config.listen.port })
    return app
  } catch (error) {
    await app.close()
    const { host, port } = config.listen
    throw new Error(`cannot listen on ${host}:${port}; is another server running there?`, { cause: error })
  }
}

/** What the store did, as figures and as log lines. */
function storeObserver(metrics: ServerMetrics, log: Logger): StoreObserver {
  return {
    committed: (facts) => metrics.committed(facts),
    commitFailed: (writes) => metrics.commitFailed(writes),
    operationOpened: (operation) => metrics.operationOpened(operation),
    operationEnded(operation) {
      metrics.operationEnded(operation)
      const { id, type, status, error, resource_id, created_at, finished_at } = operation
      log.info(
        {
          operation_id: id,
          operation_type: type,
          instance_id: resource_id,
          status,
          ...(error === null ? {} : { code: error.code, error: error.message }),
          duration_ms: Math.max(0, (finished_at ?? created_at) - created_at),
        },
        'operation ended',
      )
    },
  }
}

/** What is done to bring a database to the current schema, as log lines. */
function migrationLog(log: Logger): MigrationObserver {
  return {
    migrating(durationMs, waiting) {
      const doing = waiting ? 'waiting for other servers before' : 'still'
      log.warn({ duration_ms: Math.round(durationMs) }, `${doing} bringing the database to the current schema`)
    },
    migrated(migrations, durationMs) {
      log.info({ migrations, duration_ms: Math.round(durationMs) }, 'the database was brought to the current schema')
    },
  }
}
