"""Rows go into their tables and come back equal, in order."""

from pathlib import Path

import msgspec
import pytest

from kecs.ecs.model import (
    KINDS,
    ClientToken,
    Cluster,
    Container,
    Deployment,
    Family,
    LocalPort,
    Node,
    NodePort,
    Row,
    Service,
    ServiceEvent,
    Task,
    TaskDefinition,
    TaskPort,
)
from kecs.ecs.state import State
from kecs.errors import KecsError
from kecs.store import rows
from kecs.store.migrations import open_database

AWKWARD = {"name": 'a"\\\n\u2028é😀', "nested": [{"x": None, "y": [1, 2.5, True]}]}

SAMPLES: list[Row] = [
    Cluster(
        region="eu-west-1", name="My_App", created_at=1763931234.1234, settings=[AWKWARD], tags={"k": ""}
    ),
    Family(region="eu-west-1", name="web", last_revision=7),
    TaskDefinition(region="eu-west-1", family="web", revision=7, definition=AWKWARD, registered_at=0.1),
    Service(
        region="eu-west-1",
        cluster="c",
        name="s",
        task_definition="arn",
        desired_count=2,
        deployment_configuration={"maximumPercent": 200},
        deployments=[
            Deployment(id="ecs-svc/1", task_definition="arn", desired_count=2, created_at=1.5, updated_at=2.5)
        ],
        events=[ServiceEvent(id="e", created_at=3.0, message="(service s) has reached a steady state.")],
        created_at=1.0,
    ),
    Task(
        region="eu-west-1",
        cluster="c",
        id="0" * 32,
        group="service:s",
        task_definition="arn",
        family="web",
        revision=7,
        containers=[Container(name="web", id="u", image="nginx", exit_code=137)],
        ports=[TaskPort(container="web", container_port=80, host_port=29999, ready=True)],
        created_at=1.0,
    ),
    LocalPort(port=29999, region="eu-west-1", task_id="0" * 32, released_at=4.0),
    Node(name="one", addresses=["192.0.2.7", "2001:db8::7"], ready=True),
    NodePort(
        region="eu-west-1",
        cluster="c",
        service="s",
        container_port=53,
        protocol="udp",
        port=30053,
        applied=True,
    ),
    ClientToken(
        region="eu-west-1", operation="RunTask", token="t", request_hash="h", result=["arn"], created_at=1.0
    ),
]


def write(database, state, changes):
    statements, _ = rows.statements(state, rows.encode(changes), 0)
    database.write(statements)


@pytest.fixture
def database(short_path: Path):
    database = open_database(short_path / "kecs.duckdb")
    yield database
    database.close(checkpoint=False)


def test_every_kind_of_row_has_a_sample_here():
    """A new kind of row must be added to the samples."""
    assert {type(row) for row in SAMPLES} == set(KINDS)


def test_schema_has_the_key_columns_of_every_kind(database):
    """The tables of schema.sql are those of the model, with the columns that the statements use."""
    tables = [name for (name,) in database.rows("SELECT table_name FROM duckdb_tables()")]
    columns = {
        table: tuple(row[0] for row in database.rows(f"DESCRIBE {table}"))
        for table in tables
        if table != "kecs_schema"
    }

    assert columns == {kind.TABLE: (*rows.KEYS[kind], "position", "doc") for kind in KINDS}


@pytest.mark.parametrize("row", SAMPLES, ids=lambda row: row.TABLE)
def test_a_row_comes_back_equal_after_insert_update_and_is_gone_after_delete(database, row):
    """Insert, update and delete of each kind do what they say on disk."""
    name = (type(row), row.key)

    write(database, State(), {name: row})
    assert rows.load(database).state.get(type(row), *row.key) == row

    changed = next(
        msgspec.structs.replace(row, **{field: value})
        for field, value in (
            ("tags", {"x": "y"}),
            ("last_revision", 8),
            ("released_at", 5.0),
            ("result", []),
            ("ready", False),
            ("port", 30054),
        )
        if hasattr(row, field)
    )
    write(database, State([row]), {name: changed})
    assert rows.load(database).state.scan(type(row)) == [changed]

    write(database, State([changed]), {name: None})
    assert rows.load(database).state.scan(type(row)) == []


def test_rows_keep_the_order_in_which_they_were_first_put(database):
    """An update does not move a row, and a later row comes later, also after a reload."""
    first, second, third = (Cluster(region="r", name=name, created_at=1.0) for name in ("z", "m", "a"))
    write(database, State(), {(Cluster, row.key): row for row in (first, second)})
    loaded = rows.load(database)
    newer = msgspec.structs.replace(first, status="INACTIVE")
    statements, position = rows.statements(
        loaded.state,
        rows.encode({(Cluster, third.key): third, (Cluster, newer.key): newer}),
        loaded.last_position,
    )
    database.write(statements)

    assert rows.load(database).state.scan(Cluster) == [newer, second, third]
    assert position == 3


def test_a_row_of_an_older_program_gets_the_defaults_of_new_members(database):
    """Members without a stored value take their default, and unknown ones are passed over."""
    database.execute(
        "INSERT INTO cluster VALUES ('r', 'c', 1, ?)",
        ['{"region": "r", "name": "c", "created_at": 1, "of_the_future": 1}'],
    )

    assert rows.load(database).state.get(Cluster, "r", "c") == Cluster(region="r", name="c", created_at=1.0)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("INSERT INTO cluster VALUES ('r', 'c', 1, '{\"region\": 5}')", "Expected `str`, got `int`"),
        ("INSERT INTO cluster VALUES ('r', 'other', 1, ?)", "has another key"),
        ("INSERT INTO cluster SELECT 'r', 'c', i, ? FROM range(2) t(i)", "holds a key twice"),
    ],
)
def test_a_row_that_cannot_be_understood_is_an_error_that_names_its_table(database, sql, why):
    """Nothing is skipped or repaired in silence."""
    document = msgspec.json.encode(Cluster(region="r", name="c", created_at=1.0)).decode()
    database.execute(sql, [document] if "?" in sql else [])

    with pytest.raises(KecsError, match=f"table cluster: .*{why}") as caught:
        rows.load(database)
    assert "restore `kecs.duckdb`" in caught.value.hint
