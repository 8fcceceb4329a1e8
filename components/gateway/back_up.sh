#!/bin/bash
# Dump the gateway's database into /dumps, and keep the newest few. Runs in PostgreSQL's image as a CronJob.
#
# From the environment: PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD as libpq has them; DUMPS, the folder; KEPT, how
# many stay. A dump has its name only once it is whole, and none goes before the new one is there.
set -euo pipefail
umask 077

dump_to() { # FILE
    rm -f "$DUMPS"/*.part
    pg_dump --format=custom --no-owner --no-privileges --file="$1.part"
    pg_restore --list "$1.part" >/dev/null # its table of contents can be read
    sync "$1.part"
    mv "$1.part" "$1"
}

# 20261126T021500Z.dump: the newest is the last by name.
dumps() {
    find "$DUMPS" -maxdepth 1 -name '2*Z.dump' -printf '%f\n' | sort
}

back_up() {
    local name
    name="$(date -u +%Y%m%dT%H%M%SZ).dump"
    dump_to "$DUMPS/$name"
    dumps | head -n "-$KEPT" | while read -r old; do
        rm -f "${DUMPS:?}/$old"
        echo "removed $old"
    done
    echo "dumped $PGDATABASE to $name ($(stat -c %s "$DUMPS/$name") bytes); kept: $(dumps | tr '\n' ' ')"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
    back_up
fi
