"""The schema moves on before the proxy does; a migration that fails stops there and loses nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.gateway.environment import Environment
from tests.gateway.postgres import Postgres
from tests.gateway.rendered import rendered

BEHIND = 5  # migrations that an older LiteLLM did not have
INSERT_KEY = """INSERT INTO "LiteLLM_VerificationToken" (token, key_alias, spend, max_budget)
    VALUES ('old-token', 'old-key', 12.5, 100)"""
KEYS = 'SELECT token, key_alias, spend, max_budget FROM "LiteLLM_VerificationToken"'
COLUMNS = """SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name <> '_prisma_migrations' ORDER BY 1, 2"""
LEDGER = """CREATE TABLE "_prisma_migrations" (id text, migration_name text, checksum text, finished_at timestamptz,
    logs text, rolled_back_at timestamptz, started_at timestamptz, applied_steps_count int)"""
APPLIED = """INSERT INTO "_prisma_migrations" VALUES ('{0}', '{0}', 'x', now(), NULL, NULL, now(), 1)"""


def test_a_failed_migration_loses_nothing_and_the_next_one_brings_the_schema_up_to_date(
    environment: Environment, postgres: Postgres, tmp_path: Path
) -> None:
    names = sorted(path.name for path in environment.migrations.iterdir() if path.is_dir())
    # An older release: its own migrations, and a key.
    postgres.create_database("older")
    older = [(environment.migrations / name / "migration.sql").read_text() for name in names[:-BEHIND]]
    ledger = [APPLIED.format(name) for name in names[:-BEHIND]]
    postgres.script("older", "\n".join([*older, LEDGER + ";", *(row + ";" for row in ledger), INSERT_KEY]))
    before = postgres.sql(KEYS, "older")

    # The next one brings a migration that fails half-way, behind some that work.
    broken = f"{names[-2]}_broken"
    script = tmp_path / "shipped" / "migrations" / broken / "migration.sql"
    script.parent.mkdir(parents=True)
    script.write_text('DELETE FROM "LiteLLM_VerificationToken"; ALTER TABLE "no_such_table" ADD COLUMN x INT;')
    failed = _run(environment, postgres, tmp_path, *rendered().migration)
    assert failed.returncode != 0
    assert "no_such_table" in failed.stderr + failed.stdout
    assert postgres.sql(KEYS, "older") == before

    # As the docs say: mark the failed one as rolled back, ship it mended, run the job again.
    resolved = _run(environment, postgres, tmp_path, "prisma", "migrate", "resolve", "--rolled-back", broken)
    assert resolved.returncode == 0, resolved.stderr
    script.write_text("SELECT 1;")
    done = _run(environment, postgres, tmp_path, *rendered().migration)
    assert done.returncode == 0, done.stdout + done.stderr
    assert postgres.sql(KEYS, "older") == before
    assert postgres.sql(COLUMNS, "older") == postgres.sql(COLUMNS, "template")


def _run(
    environment: Environment, postgres: Postgres, directory: Path, *command: str
) -> subprocess.CompletedProcess[str]:
    """A command in the migration job's pod: LiteLLM copies its own files into the writable directory first."""
    shipped = directory / "shipped"
    return environment.run(
        *command,
        cwd=shipped,
        variables={"DATABASE_URL": postgres.url("older"), "LITELLM_MIGRATION_DIR": str(shipped)},
    )
