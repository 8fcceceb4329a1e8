#!/bin/bash
# Put a dump back in place of what the gateway's database has. Runs in PostgreSQL's image, as a Job that an operator
# makes from a CronJob which never runs by itself (docs/operating.md). Environment as in back_up.sh beside it, and
# DUMP: the name of the dump, or nothing for the newest.
#
# What is there is dumped first, to before-restore.dump. All or nothing: it is one transaction.
set -euo pipefail
umask 077
# shellcheck source=components/gateway/back_up.sh
. "$(dirname "$0")/back_up.sh"

chosen="${DUMP:-$(dumps | tail -n 1)}"
if [[ -z "$chosen" ]]; then
    echo "there is no dump in $DUMPS" >&2
    exit 2
fi
if [[ "$chosen" == */* || ! -f "$DUMPS/$chosen" ]]; then
    echo "there is no dump '$chosen'; there are: $(dumps | tr '\n' ' ')" >&2
    exit 2
fi
others="$(psql -XAtc "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND backend_type = 'client backend' AND pid <> pg_backend_pid()")"
if [[ "$others" != 0 ]]; then
    echo "the database is in use ($others connections): scale the Deployment litellm to zero first" >&2
    exit 2
fi
if [[ "$chosen" != before-restore.dump ]]; then
    dump_to "$DUMPS/before-restore.dump"
fi
# The schema goes as a whole, so that nothing is left of tables that the dump does not have. A dump that cannot be read
# to its end never comes to the COMMIT.
{
    echo 'BEGIN; DROP SCHEMA public CASCADE;'
    # As initdb makes it.
    echo "CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC;"
    echo "COMMENT ON SCHEMA public IS 'standard public schema';"
    pg_restore --no-owner --no-privileges --file=- "$DUMPS/$chosen" && echo 'COMMIT;'
} | psql -X --quiet --set=ON_ERROR_STOP=1 >/dev/null
psql -XAtqc 'ANALYZE'
echo "restored $PGDATABASE from $chosen; what was there is in before-restore.dump"
