"""PostgreSQL and Redis in a pod, reached through a tunnel by their own clients and benchmarks: no error.

Both servers are Debian's, in images made of this computer's files, and containers of one task, so that
everything here shares one tunnel. The runs are bounded in count; no speed is asked for.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.cluster import service, target, tasks
from tests.cluster.harness import images, procs
from tests.process.harness import until

POSTGRES, REDIS = "kecs.test/postgres:1", "kecs.test/redis:1"
POSTGRES_PORT, REDIS_PORT = 5432, 6379
USER = "65534"
"""`nobody`: PostgreSQL does not run as root."""
# One transaction in pgbench's own script is seven statements, each a round trip.
TRANSACTIONS = 40
CLIENTS = 8

START_POSTGRES = """
umask 077
while IFS= read -r line; do echo "$line"; done < /etc/postgres/key > /data/key
{bin}/initdb --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C /data/db > /dev/null
echo "host all all all trust" >> /data/db/pg_hba.conf
exec {bin}/postgres -D /data/db -c listen_addresses=* -c unix_socket_directories=/data -c fsync=off \
    -c jit=off -c ssl=on -c ssl_cert_file=/etc/postgres/certificate -c ssl_key_file=/data/key
"""


def postgres_folder() -> Path:
    """Return the folder of the newest PostgreSQL here, such as /usr/lib/postgresql/15."""
    return max(Path("/usr/lib/postgresql").iterdir(), key=lambda folder: float(folder.name))


def postgres_image(folder: Path) -> Path:
    """Write the image of a server that makes a new database when it starts, with a certificate for TLS."""
    home = postgres_folder()
    procs.run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=postgres"),
        *("-keyout", folder / "key", "-out", folder / "certificate"),
    )
    libraries = [home / "lib" / name for name in ("plpgsql.so", "dict_snowball.so")]
    return images.program_image(
        folder / "postgres.tar",
        POSTGRES,
        binaries=[str(home / "bin" / name) for name in ("initdb", "postgres")],
        files={
            **{str(file): file for file in libraries},
            f"usr/share/postgresql/{home.name}": Path("/usr/share/postgresql") / home.name,
            "etc/postgres/key": folder / "key",
            "etc/postgres/certificate": folder / "certificate",
        },
        command=["sh", "-c", START_POSTGRES.format(bin=home / "bin")],
    )


def redis_image(folder: Path) -> Path:
    """Write the image of a server that keeps nothing."""
    return images.program_image(
        folder / "redis.tar",
        REDIS,
        binaries=["redis-server"],
        entrypoint=["redis-server", "--protected-mode", "no", "--save", "", "--appendonly", "no"],
    )


class Databases:
    """A service with one task of both servers, and a forward by tunnel to each."""

    def __init__(self, home) -> None:
        self.home = home
        tasks.define(
            home,
            {
                "name": "postgres",
                "image": POSTGRES,
                "user": USER,
                "portMappings": [{"containerPort": POSTGRES_PORT}],
                "linuxParameters": {"tmpfs": [{"containerPath": "/data", "size": 256}]},
                "stopTimeout": 2,
            },
            {
                "name": "redis",
                "image": REDIS,
                "portMappings": [{"containerPort": REDIS_PORT}],
                "stopTimeout": 2,
            },
            family="web",
            cpu="2048",
            memory="1024",
        )
        home.service(count=1)
        home.stable()
        self.postgres, self.redis = (
            service.forward(home, route="tunnel", port=port) for port in (POSTGRES_PORT, REDIS_PORT)
        )

    def client(self, name: str, *arguments: str) -> list[str]:
        """Return the command line of a client of PostgreSQL."""
        program = str(postgres_folder() / "bin" / name)
        return [program, "-h", "127.0.0.1", "-p", str(self.postgres), "-U", "postgres", *arguments]

    def psql(self, statement: str, **parameters: str) -> str:
        """Run one statement by a `psql` of its own; return what it printed."""
        wish = " ".join(f"{name}={value}" for name, value in {"dbname": "postgres", **parameters}.items())
        return said(*self.client("psql", "-X", "-A", "-t", "-c", statement, wish)).strip()

    def check(self) -> None:
        """Check that both forwards serve by their tunnels and no connection is left on them."""
        for port in (self.postgres, self.redis):
            until(lambda port=port: self.row(port)["connections"]["open"] == 0, "no connection is left")
            assert (self.row(port)["state"], self.row(port)["route"]) == ("ACTIVE", "tunnel")

    def row(self, port: int):
        return service.row(self.home, port)


@pytest.fixture(scope="module")
def databases(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    own.load(postgres_image(folder))
    own.load(redis_image(folder))
    with target.visiting(own) as home:
        target.start(home, own)
        yield Databases(home)


def said(*command: str) -> str:
    """Run a client; return its standard output. It may not complain of anything."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert not any(word in done.stderr.lower() for word in ("error", "fatal", "aborted", "closed")), (
        done.stderr
    )
    return done.stdout


@contextmanager
def session(databases):
    """Give a function that asks a `psql` which stays connected all the time."""
    command = databases.client("psql", "-X", "-A", "-t", "postgres")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as going:

        def ask(statement: str) -> str:
            going.stdin.write(f"{statement};\n")
            going.stdin.flush()
            return going.stdout.readline().strip()

        yield ask
        going.stdin.close()
        assert going.wait(10) == 0


@pytest.fixture
def bystander(databases):
    """A session of each server that was there before the test and is the same after it."""
    with ExitStack() as stack:
        ask = stack.enter_context(session(databases))
        number = ask("select pg_backend_pid()")
        assert int(number)
        yield
        assert ask("select pg_backend_pid()") == number
    databases.check()


@pytest.mark.usefixtures("bystander")
def test_pgbench_makes_a_new_connection_for_each_transaction_without_an_error(databases):
    said(*databases.client("pgbench", "--initialize", "--quiet", "postgres"))
    assert databases.psql("select count(*) from pgbench_accounts") == "100000"
    options = ("-C", "-c", str(CLIENTS), "-j", "2", "-t", str(TRANSACTIONS))

    report = said(*databases.client("pgbench", *options, "postgres"))

    assert f"transactions actually processed: {CLIENTS * TRANSACTIONS}/{CLIENTS * TRANSACTIONS}" in report
    assert "number of failed transactions: 0 " in report
    assert databases.psql("select count(*) from pgbench_history") == str(CLIENTS * TRANSACTIONS)


@pytest.mark.usefixtures("bystander")
def test_disconnects_of_tls_clients_harm_nobody(databases):
    """The end of a TLS session of PostgreSQL is often a reset, which ends all of `kubectl port-forward`."""
    for _ in range(15):
        shown = databases.psql(
            "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()", sslmode="require"
        )
        assert shown.startswith("t|TLSv1")
    for _ in range(3):
        with subprocess.Popen(
            databases.client("psql", "-X", "-c", "select pg_sleep(60)", "dbname=postgres sslmode=require"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as killed:
            until(lambda: sleepers(databases) == "1", "it sleeps on the server")
            killed.kill()
        databases.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)'"
        )
        until(lambda: sleepers(databases) == "0", "it has gone")


def sleepers(databases) -> str:
    return databases.psql(
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
    )


@pytest.mark.usefixtures("bystander")
def test_a_large_result_and_a_large_copy_are_whole(databases, tmp_path):
    rows = 400_000
    file = tmp_path / "rows"
    with file.open("w") as out:
        command = databases.client("psql", "-X", "-c", f"copy (select generate_series(1, {rows})) to stdout")
        subprocess.run([*command, "postgres"], stdout=out, timeout=60, check=True)
    assert file.read_text() == "".join(f"{number}\n" for number in range(1, rows + 1))

    databases.psql("create table copied (number int)")
    with file.open() as given:
        command = databases.client("psql", "-X", "-c", "copy copied from stdin", "postgres")
        subprocess.run(command, stdin=given, stdout=subprocess.DEVNULL, timeout=60, check=True)
    assert databases.psql("select count(*), sum(number) from copied") == f"{rows}|{rows * (rows + 1) // 2}"


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize(
    "options",
    [
        ("-t", "set,get,lpush,lrange_100", "-n", "5000", "-c", "50"),
        ("-t", "set,get", "-n", "40000", "-c", "20", "-P", "16", "-d", "100"),
        ("-t", "ping_inline,get", "-n", "400", "-c", "16", "-k", "0"),
    ],
    ids=["keep-alive", "pipelined", "new-connections"],
)
def test_redis_benchmark_runs_without_an_error(databases, options):
    tests = len(options[1].split(","))
    report = said("redis-benchmark", "-h", "127.0.0.1", "-p", str(databases.redis), "--csv", *options)

    assert len(report.splitlines()) >= 1 + tests
    assert said("redis-cli", "-h", "127.0.0.1", "-p", str(databases.redis), "ping") == "PONG\n"
