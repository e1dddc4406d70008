import { randomBytes } from 'node:crypto'

const stockBytes = 4096
let stock = Buffer.alloc(0)

/** Random bytes, a few at a time, from a stock: asking the system for them costs more than what they are needed for. */
export function fewRandomBytes(count: number): Buffer {
  if (stock.length < count) stock = randomBytes(stockBytes)
  const taken = stock.subarray(0, count)
  stock = stock.subarray(count)
  return taken
}
