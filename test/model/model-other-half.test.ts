import { checkShare } from './check.ts'

checkShare(1, 2)
