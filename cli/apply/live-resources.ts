import type { Schemas } from '@berth/sdk/client.ts'
import { readPages } from '../command/list.ts'
import type { IfMatch, PatchedMetadata, Versioned } from '../command/resource.ts'
import { listInstancesNamed } from '../resources/instance-lookup.ts'
import { call, callForAnswer, type Session } from '../session.ts'
import type { Declared, Kind } from './file.ts'

/** A resource as it is, as far as plans compare it. */
export interface Live {
  id: string
  metadata: { name: string; labels: Record<string, string> }
  spec: object
}

/** A change of a resource. */
export interface Patch {
  metadata?: PatchedMetadata
  spec?: Record<string, unknown>
}

/** The calls that make and change one kind of resource. */
export interface KindCalls {
  /** Fields of the spec that a PATCH takes; another value of any other field cannot be had. */
  changeable: readonly string[]
  get: (session: Session, id: string) => Promise<Versioned<Live>>
  list: (session: Session, selector: string) => Promise<Live[]>
  create: (session: Session, body: Declared['body']) => Promise<Live>
  patch: (session: Session, id: string, body: Patch, header: IfMatch) => Promise<Live>
  /** Gives the operation to wait for, or null when it is gone. */
  remove: (session: Session, id: string) => Promise<string | null>
}

/**
 * The calls of each kind. Bodies come from a file: their fields were looked at, and their values are for the server to
 * judge, so they are taken for what the API takes.
 */
export const kindCalls: Record<Kind, KindCalls> = {
  SshKey: {
    changeable: [],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/ssh-keys/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/ssh-keys', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/ssh-keys', { body: body as unknown as Schemas['SshKeyCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/ssh-keys/{id}', { ...change(id, header), body: body as Schemas['SshKeyPatch'] }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/ssh-keys/{id}', path(id)))),
  },
  Image: {
    changeable: [],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/images/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/images', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/images', { body: body as unknown as Schemas['ImageCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/images/{id}', { ...change(id, header), body: body as Schemas['ImagePatch'] }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/images/{id}', path(id)))),
  },
  Vpc: {
    changeable: [],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/vpcs/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/vpcs', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/vpcs', { body: body as unknown as Schemas['VpcCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/vpcs/{id}', { ...change(id, header), body: body as Schemas['VpcPatch'] }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/vpcs/{id}', path(id)))),
  },
  Subnet: {
    changeable: ['auto_assign_public_ip'],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/subnets/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/subnets', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/subnets', { body: body as unknown as Schemas['SubnetCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/subnets/{id}', { ...change(id, header), body: body as Schemas['SubnetPatch'] }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/subnets/{id}', path(id)))),
  },
  SecurityGroup: {
    changeable: ['description', 'rules'],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/security-groups/{id}', path(id))),
    list: (session, selector) =>
      everything(selector, (q) => call(session, session.client.GET('/v1/security-groups', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/security-groups', { body: body as Schemas['SecurityGroupCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/security-groups/{id}', {
          ...change(id, header),
          body: body as Schemas['SecurityGroupPatch'],
        }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/security-groups/{id}', path(id)))),
  },
  PublicIp: {
    changeable: ['instance_id'],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/public-ips/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/public-ips', q))),
    create: (session, body) =>
      call(session, session.client.POST('/v1/public-ips', { body: body as Schemas['PublicIpCreate'] })),
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/public-ips/{id}', { ...change(id, header), body: body as Schemas['PublicIpPatch'] }),
      ),
    remove: (session, id) => gone(call(session, session.client.DELETE('/v1/public-ips/{id}', path(id)))),
  },
  Instance: {
    changeable: ['security_groups'],
    get: (session, id) => callForAnswer(session, session.client.GET('/v1/instances/{id}', path(id))),
    list: (session, selector) => everything(selector, (q) => call(session, session.client.GET('/v1/instances', q))),
    create: async (session, body) => {
      const request = session.client.POST('/v1/instances', { body: body as unknown as Schemas['InstanceCreate'] })
      return (await call(session, request)) as Schemas['InstanceCreated'] // 200 is the answer to a dry run only
    },
    patch: (session, id, body, header) =>
      call(
        session,
        session.client.PATCH('/v1/instances/{id}', { ...change(id, header), body: body as Schemas['InstancePatch'] }),
      ),
    remove: async (session, id) =>
      (await call(session, session.client.DELETE('/v1/instances/{id}', path(id)))).operation_id,
  },
}

/** Instances with a name that are not being deleted: those that are make room for a new one. */
export async function livingInstancesNamed(session: Session, name: string): Promise<Live[]> {
  const named = await listInstancesNamed(session, name)
  const living = await Promise.all(
    named.map(async (instance) => {
      if (instance.status.state !== 'stopping') return instance
      const operation = await call(session, session.client.GET('/v1/operations/{id}', path(instance.operation_id)))
      return operation.type === 'instance.delete' ? null : instance
    }),
  )
  return living.filter((instance) => instance !== null)
}

function path(id: string) {
  return { params: { path: { id } } }
}

function change(id: string, header: IfMatch) {
  return { params: { path: { id }, header } }
}

async function everything<Item extends Live>(
  selector: string,
  read: (query: { params: { query: object } }) => Promise<{ items: Item[]; next_cursor?: string }>,
): Promise<Live[]> {
  return (await readPages((page) => read({ params: { query: { label_selector: selector, ...page } } }))).items
}

async function gone(removed: Promise<unknown>): Promise<null> {
  await removed
  return null
}
