"""The programs that dump the gateway's database and put a dump back, on a real PostgreSQL with LiteLLM's schema."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.gateway.postgres import Postgres, postgres_bin
from tests.gateway.proxy import PROGRAMS

KEYS = '"LiteLLM_VerificationToken"'


def run(program: str, postgres: Postgres, database: str, dumps: Path, **variables: str) -> tuple[int, str]:
    """As the CronJob's container runs it; its exit code and all that it says."""
    dumps.mkdir(exist_ok=True)
    env = {
        "PATH": f"{postgres_bin()}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "postgres",
        "PGDATABASE": database,
        "DUMPS": str(dumps),
        "KEPT": "3",
        **variables,
    }
    done = subprocess.run(
        ["bash", str(PROGRAMS / program)], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """LiteLLM's schema with a key in it."""
    name = f"backup_{abs(hash(request.node.name)) % 10**8}"
    postgres.create_database(name, template="template")
    add_key(postgres, name, "first")
    return name


def add_key(postgres: Postgres, database: str, token: str) -> None:
    postgres.sql(f"INSERT INTO {KEYS} (token, spend) VALUES ('{token}', 1.25)", database)  # noqa: S608


def keys(postgres: Postgres, database: str) -> list[list[str]]:
    return postgres.sql(f"SELECT token, spend FROM {KEYS} ORDER BY 1", database)  # noqa: S608


def names(dumps: Path) -> list[str]:
    return sorted(path.name for path in dumps.iterdir())


def test_what_was_dumped_comes_back_whole_and_what_came_since_is_kept_aside(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    dumps = tmp_path / "dumps"
    before = postgres.dump(database)
    assert run("back_up.sh", postgres, database, dumps)[0] == 0
    (first,) = names(dumps)
    assert (dumps / first).stat().st_mode & 0o077 == 0
    # An accident: tables gone, rows gone, a table that the dump does not have.
    add_key(postgres, database, "second")
    postgres.sql('DROP TABLE "LiteLLM_TeamTable" CASCADE; CREATE TABLE stranger (x int)', database)
    postgres.sql(f"DELETE FROM {KEYS} WHERE token = 'first'", database)  # noqa: S608
    code, said = run("restore.sh", postgres, database, dumps)
    assert code == 0, said
    assert first in said

    def plain(dump: str) -> list[str]:
        return [line for line in dump.splitlines() if not line.startswith((r"\restrict", r"\unrestrict", "--"))]

    assert plain(postgres.dump(database)) == plain(before)
    # Twice is once, and the way back leads to what was there.
    assert run("restore.sh", postgres, database, dumps, DUMP="before-restore.dump")[0] == 0
    assert keys(postgres, database) == [["second", "1.25"]]
    assert postgres.sql("SELECT count(*) FROM stranger", database) == [["0"]]


def test_the_newest_stay_and_the_oldest_goes_once_a_new_one_is_whole(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    old = [f"2020010{day}T021500Z.dump" for day in range(1, 5)]
    for name in (*old, "notes.txt", "before-restore.dump", "20200101T000000Z.dump.part"):
        (dumps / name).write_text("x")
    assert run("back_up.sh", postgres, "no-such-database", dumps)[0] != 0
    assert set(old) <= set(names(dumps))
    assert run("back_up.sh", postgres, database, dumps)[0] == 0
    kept = names(dumps)
    assert len(kept) == 3 + 2
    assert {"notes.txt", "before-restore.dump", *old[2:]} < set(kept)


def test_a_dump_that_is_damaged_changes_nothing(postgres: Postgres, database: str, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    postgres.sql(
        f"INSERT INTO {KEYS} (token) SELECT md5(random()::text) FROM generate_series(1, 2000)",  # noqa: S608
        database,
    )
    assert run("back_up.sh", postgres, database, dumps)[0] == 0
    (name,) = names(dumps)
    whole = (dumps / name).read_bytes()
    before = keys(postgres, database)
    for part in (0.3, 0.6, 0.95):
        (dumps / name).write_bytes(whole[: int(len(whole) * part)])
        code, said = run("restore.sh", postgres, database, dumps, DUMP=name)
        assert code != 0, said
        assert keys(postgres, database) == before


def test_a_restore_is_refused_with_what_is_in_the_way(postgres: Postgres, database: str, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    assert run("restore.sh", postgres, database, dumps) == (2, f"there is no dump in {dumps}\n")
    assert run("back_up.sh", postgres, database, dumps)[0] == 0
    for wrong in ("20200101T000000Z.dump", "../../etc/passwd"):
        code, said = run("restore.sh", postgres, database, dumps, DUMP=wrong)
        assert code == 2
        assert names(dumps)[0] in said
    client = subprocess.Popen(
        [f"{postgres_bin()}/psql", "-X", "-d", postgres.url(database), "-c", "SELECT pg_sleep(60)"]
    )
    try:
        busy = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        while postgres.sql(busy)[0][0] == "0":
            pass
        code, said = run("restore.sh", postgres, database, dumps)
        assert code == 2
        assert "scale the Deployment litellm to zero" in said
    finally:
        client.kill()
        client.wait()
