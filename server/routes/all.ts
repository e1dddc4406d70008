import * as events from '@berth/contract/events.ts'
import * as hosts from '@berth/contract/hosts/hosts.ts'
import * as orphans from '@berth/contract/hosts/orphans.ts'
import * as images from '@berth/contract/images/images.ts'
import * as instanceTypes from '@berth/contract/instances/instance-types.ts'
import * as instances from '@berth/contract/instances/instances.ts'
import * as sshKeys from '@berth/contract/instances/ssh-keys.ts'
import * as usage from '@berth/contract/instances/usage.ts'
import * as networkExplain from '@berth/contract/networks/explain.ts'
import * as publicIps from '@berth/contract/networks/public-ips.ts'
import * as securityGroups from '@berth/contract/networks/security-groups.ts'
import * as subnets from '@berth/contract/networks/subnets.ts'
import * as vpcs from '@berth/contract/networks/vpcs.ts'
import * as operations from '@berth/contract/operations.ts'
import * as problem from '@berth/contract/problem.ts'
import * as schema from '@berth/contract/schema.ts'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import type { HostCredential } from '../config.ts'
import type { Context } from '../context.ts'
import { buildHttp } from '../http/application.ts'
import { docsRoutes } from '../http/docs-page.ts'
import { agentRoutes } from './agent.ts'
import { eventRoutes } from './events.ts'
import { healthRoutes } from './health.ts'
import { hostRoutes } from './hosts.ts'
import { imageRoutes } from './images.ts'
import { instanceTypeRoutes } from './instance-types.ts'
import { instanceRoutes } from './instances.ts'
import { metricsRoutes } from './metrics.ts'
import { networkRoutes } from './network.ts'
import { operationRoutes } from './operations.ts'
import { orphanRoutes } from './orphans.ts'
import { publicIpRoutes } from './public-ips.ts'
import { securityGroupRoutes } from './security-groups.ts'
import { sshKeyRoutes } from './ssh-keys.ts'
import { subnetRoutes } from './subnets.ts'
import { vpcRoutes } from './vpcs.ts'

/** The HTTP server with every route. */
export async function buildApi(ctx: Context, credentials: readonly HostCredential[]): Promise<FastifyInstance> {
  const app = await buildHttp(ctx.log, namedSchemas(), ctx.settings.limits, ctx.metrics)
  const api = app.withTypeProvider<TypeBoxTypeProvider>()
  instanceRoutes(api, ctx)
  operationRoutes(api, ctx)
  instanceTypeRoutes(api, ctx)
  imageRoutes(api, ctx)
  sshKeyRoutes(api, ctx)
  vpcRoutes(api, ctx)
  subnetRoutes(api, ctx)
  securityGroupRoutes(api, ctx)
  networkRoutes(api, ctx)
  publicIpRoutes(api, ctx)
  hostRoutes(api, ctx)
  orphanRoutes(api, ctx)
  eventRoutes(api, ctx)
  agentRoutes(api, ctx, credentials)
  healthRoutes(api, ctx)
  metricsRoutes(api, ctx)
  api.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  docsRoutes(api)
  await app.ready()
  return app
}

let named: readonly object[] | null = null

/** Every schema of the contract that has a name; always the same list. */
function namedSchemas(): readonly object[] {
  named ??= collectNamed()
  return named
}

function collectNamed(): object[] {
  const modules = [
    schema,
    problem,
    instances,
    operations,
    instanceTypes,
    images,
    sshKeys,
    vpcs,
    subnets,
    securityGroups,
    networkExplain,
    usage,
    publicIps,
    hosts,
    orphans,
    events,
  ]
  return modules
    .flatMap((module): unknown[] => Object.values(module))
    .filter((value) => typeof value === 'object' && value !== null)
    .filter((value) => typeof Reflect.get(value, '$id') === 'string')
}
