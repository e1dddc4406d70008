import { SerializerSelector } from '@fastify/fast-json-stringify-compiler'

/**
 * Fastify's own serialisers (`schemaController.compilersFactory.buildSerializer`), each compiled at the first answer that needs it. There are hundreds,
 * one for each status of each route, nearly all for problems; compiling all of them takes a second and a half.
 */
export const serializersOnDemand: ReturnType<typeof SerializerSelector> = (schemas, options) => {
  const compile = SerializerSelector()(schemas, options)
  return (route) => {
    let serialize: ReturnType<typeof compile> | null = null
    return (document) => {
      serialize ??= compile(route)
      return serialize(document)
    }
  }
}
