#!/usr/bin/env bash
# PostgreSQL, Redis and two servers on free ports of this machine, until Ctrl-C. Everything lies in one folder, which is gone
# then. On its standard output it says where the servers are, for a shell to read: ONE=http://… TWO=http://…
#
#   examples/two_servers.sh > two.env     COOP_SERVER names another program than the one that is built here.
set -euo pipefail
cd "$(dirname "$0")/.."

initdb=$(ls -d /usr/lib/postgresql/*/bin/initdb 2> /dev/null | sort -V | tail -1 || true)
bin=$(dirname "${initdb:-$(command -v initdb || echo missing/initdb)}")
[ -x "$bin/initdb" ] && command -v redis-server > /dev/null || {
    echo 'this needs PostgreSQL and Redis (on Debian: apt-get install postgresql redis-server)' >&2
    exit 1
}
if [ -z "${COOP_SERVER:-}" ]; then
    cargo build --release -q -p coop-server
    COOP_SERVER=$PWD/target/release/coop-server
fi

place=$(mktemp -d)
chmod 755 "$place"
children=()
end() {
    trap - EXIT INT TERM
    # The servers first, which say goodbye.
    for child in "${children[@]:2}"; do kill -TERM "$child" 2> /dev/null || true; done
    for child in "${children[@]:2}"; do wait "$child" 2> /dev/null || true; done
    for child in "${children[@]:0:2}"; do kill -INT "$child" 2> /dev/null || true; done
    wait 2> /dev/null || true
    rm -rf "$place"
}
trap end EXIT
trap 'exit 0' INT TERM

# PostgreSQL refuses to run as root.
as=()
mkdir "$place/pg"
if [ "$(id -u)" = 0 ]; then
    chown postgres "$place/pg"
    as=(setpriv --reuid postgres --regid postgres --init-groups --)
fi
free() {
    local port
    while port=$((20000 + RANDOM % 20000)); (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do :; done
    echo "$port"
}
pg=$(free) redis=$(free)

"${as[@]}" "$bin/initdb" -D "$place/pg" -A trust -U postgres -E UTF8 --no-locale > "$place/initdb.log"
"${as[@]}" "$bin/postgres" -D "$place/pg" -p "$pg" -h 127.0.0.1 -k '' > "$place/pg.log" 2>&1 &
children+=($!)
redis-server --port "$redis" --bind 127.0.0.1 --save '' --appendonly no --dir "$place" > "$place/redis.log" &
children+=($!)
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$pg"; do sleep 0.1; done

export COOP_DATABASE_URL=postgres://postgres@127.0.0.1:$pg/postgres COOP_REDIS_URL=redis://127.0.0.1:$redis
export COOP_BOTS=${COOP_BOTS:-mock=mock,scribe=scribe}
COOP_JWT_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export COOP_JWT_SECRET
for name in one two; do
    "$COOP_SERVER" --listen 127.0.0.1:0 --port-file "$place/$name" >&2 &
    children+=($!)
done
for name in one two; do
    until [ -s "$place/$name" ]; do
        kill -0 "${children[2]}" "${children[3]}" 2> /dev/null || { echo 'a server has not started' >&2; exit 1; }
        sleep 0.1
    done
done
echo "export ONE=http://127.0.0.1:$(cat "$place/one") TWO=http://127.0.0.1:$(cat "$place/two")"
echo 'Ctrl-C ends all of it.' >&2
wait -n || true
