import { checkShare } from './check.ts'

checkShare(0, 2)
