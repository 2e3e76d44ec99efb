#!/bin/sh
# install.sh - the real letta-code command line, unmodified, in the versions that the tests drive.
#
#     tests/letta/install.sh [VERSION...]
#
# And Letta's TypeScript SDK, to .deps/letta/sdk.  Each version of the client goes to .deps/letta/<version> below the project root, and the node and npm that it
# needs to .deps/letta/node; the machine's own npm only fetches these two.  Nothing is done for what is there already, so the script may run before every
# test run.  Install scripts of packages are not run.
#
# Some dependencies of the client are in no public registry.  None of them is loaded by what the
# tests do; an npm override puts an empty package in their place, and the client's own files stay
# as they were published.
set -eu

versions="${*:-0.19.5 0.25.9 0.30.28 0.32.18}"
sdk_version=1.12.1
node_version=22.23.3
npm_version=10.9.3 # Debian's 9.2 cannot map an override to a folder
absent="@letta-ai/trajectory @letta-ai/letta-agent-sdk @janhapke/sharp-electron"

here=$(cd "$(dirname "$0")" && pwd)
deps=$(cd "$here/../.." && pwd)/.deps/letta
mkdir -p "$deps"

# One installer at a time: two test runs may start together.
exec 9>"$deps/lock"
flock 9

# quiet_npm FOLDER NPM...: npm install in FOLDER, talk only when it fails.
quiet_npm() {
    folder=$1
    shift
    if ! (cd "$folder" && "$@" install --ignore-scripts --no-audit --no-fund --no-package-lock \
        --loglevel=error) >"$folder/npm.log" 2>&1; then
        cat "$folder/npm.log" >&2
        echo "letta: npm could not install $folder" >&2
        exit 1
    fi
}

# ready FOLDER STAMP: was FOLDER finished by this very script?
ready() {
    [ -f "$1/.done" ] && [ "$(cat "$1/.done")" = "$2" ]
}

# publish STAGED FOLDER STAMP: all or nothing, so that an interrupted install is begun anew.
publish() {
    printf '%s' "$3" >"$1/.done"
    rm -rf "$2"
    mv "$1" "$2"
}

empty="$deps/empty"
mkdir -p "$empty"
printf '{"name":"empty","version":"0.0.0","main":"index.js"}\n' >"$empty/package.json"
printf 'module.exports = {};\n' >"$empty/index.js"

case "$(uname -m)" in
x86_64) arch=x64 ;;
aarch64) arch=arm64 ;;
*)
    echo "letta: no node package is known for $(uname -m)" >&2
    exit 1
    ;;
esac
stamp="node $node_version $arch npm $npm_version"
if ! ready "$deps/node" "$stamp"; then
    staged="$deps/node.new"
    rm -rf "$staged"
    mkdir -p "$staged"
    printf '{"private":true,"dependencies":{"node-linux-%s":"%s","npm":"%s"}}\n' "$arch" \
        "$node_version" "$npm_version" >"$staged/package.json"
    quiet_npm "$staged" npm
    mkdir -p "$staged/bin"
    ln -s "../node_modules/node-linux-$arch/bin/node" "$staged/bin/node"
    publish "$staged" "$deps/node" "$stamp"
fi

stamp="letta-client $sdk_version"
if ! ready "$deps/sdk" "$stamp"; then
    staged="$deps/sdk.new"
    rm -rf "$staged"
    mkdir -p "$staged"
    printf '{"private":true,"dependencies":{"@letta-ai/letta-client":"%s"}}\n' "$sdk_version" \
        >"$staged/package.json"
    quiet_npm "$staged" npm
    publish "$staged" "$deps/sdk" "$stamp"
fi

for version in $versions; do
    stamp="letta-code $version, without $absent"
    ready "$deps/$version" "$stamp" && continue
    staged="$deps/$version.new"
    rm -rf "$staged"
    mkdir -p "$staged"
    {
        printf '{"private":true,"dependencies":{"@letta-ai/letta-code":"%s"},"overrides":{' "$version"
        comma=
        for name in $absent; do
            printf '%s"%s":"file:%s"' "$comma" "$name" "$empty"
            comma=,
        done
        printf '}}\n'
    } >"$staged/package.json"
    quiet_npm "$staged" "$deps/node/bin/node" "$deps/node/node_modules/npm/bin/npm-cli.js"
    publish "$staged" "$deps/$version" "$stamp"
done
