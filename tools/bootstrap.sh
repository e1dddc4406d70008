#!/bin/sh
# npm start and npm test on a fresh clone: npm packages first (with the machine's own Node, which may be older than the
# one Berth runs on), then everything else in TypeScript.
set -eu
cd -- "$(dirname -- "$0")/.."
command=$1
shift

# npm start's own Node may be too old for everything but npm
lock=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ "$(cat node_modules/.berth-lock 2>/dev/null || true)" != "$lock" ]; then
	echo "Installing the npm packages of package-lock.json into node_modules ..."
	npm ci --loglevel=error --no-audit --no-fund
	printf '%s\n' "$lock" >node_modules/.berth-lock
fi

case $command in
start)
	./node_modules/.bin/node tools/setup.ts start "$@"
	exec ./berth dev "$@"
	;;
test)
	./node_modules/.bin/node tools/setup.ts test
	exec ./node_modules/.bin/node tools/test.ts "$@"
	;;
esac
