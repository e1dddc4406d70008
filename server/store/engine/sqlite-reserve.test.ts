import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { reserveBytes, SqliteReserve } from './sqlite-reserve.ts'

let directory: string
let file: string
let database: SqliteDatabase.Database

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'berth-reserve-'))
  file = join(directory, 'berth.db')
  database = new SqliteDatabase(file)
  database.pragma('journal_mode = WAL')
  database.exec('create table words (word text)')
})

afterEach(() => {
  database.close()
  rmSync(directory, { recursive: true })
})

test('a reserve lies beside the database, is given up once, and is made anew when there is room', () => {
  const reserve = new SqliteReserve(database, file)
  expect(reserve.keep()).toBe(true)
  expect(statSync(`${file}.reserve`).size).toBe(reserveBytes)
  expect(reserve.giveUp()).toBe(true)
  expect(existsSync(`${file}.reserve`)).toBe(false)
  expect(reserve.giveUp()).toBe(false)
  expect(reserve.keep()).toBe(true)
  expect(statSync(`${file}.reserve`).size).toBe(reserveBytes)
})

test('the room goes to the WAL, which SQLite writes on and reads again after a kill', () => {
  const reserve = new SqliteReserve(database, file)
  reserve.keep()
  database.exec("insert into words values ('before')")
  const before = statSync(`${file}-wal`).size
  reserve.giveUp()
  expect(statSync(`${file}-wal`).size).toBe(before + reserveBytes / 2)
  const insert = database.prepare('insert into words values (?)')
  for (let at = 0; at < 300; at++) insert.run(`after ${at}`)
  // what another connection reads is what a process would that comes after a kill
  const next = new SqliteDatabase(file, { readonly: true })
  expect(next.prepare('select count(*) from words').pluck().get()).toBe(301)
  expect(next.pragma('integrity_check', { simple: true })).toBe('ok')
  next.close()
})

test('half a reserve that was left by a kill is made whole', () => {
  writeFileSync(`${file}.reserve`, Buffer.alloc(1000))
  expect(new SqliteReserve(database, file).keep()).toBe(true)
  expect(statSync(`${file}.reserve`).size).toBe(reserveBytes)
})
