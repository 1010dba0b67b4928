"""A team's file on a real cluster: fixed ports, tasks by tags, services by name and by variable.

All in a network of its own, since the sample's ports are fixed; the cluster's machines are reached from it.
"""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.cluster import laptop, service, target, tasks
from tests.cluster.harness.images import SERVER
from tests.process.harness import NETWORK, until
from tests.process.test_team_file import SAMPLE

NAMES = ["web-service", "api-service", "debug-task"]
TAGGED = """
version: "1"
forwards:
  - {name: newest, type: task, cluster: development, tags: {Part: newest}, targetPort: 9229}
"""


@pytest.fixture(scope="module")
def home(own):
    """An instance on a computer of its own, whose time goes five times as fast, with the definitions."""
    with (
        laptop.beside(own.network),
        target.visiting(own, KECS_TIME_SCALE="0.2") as one,
    ):
        target.start(one, own)
        for family, port in (("webapp", 80), ("api", 3000), ("worker", 9229)):
            container = {
                "image": SERVER,
                "command": [],
                "portMappings": [{"containerPort": port}],
                "stopTimeout": 2,
            }
            listens = [{"name": "PORT", "value": str(port)}]
            one.register(family, environment=listens, container=container)
        yield one


@pytest.fixture(scope="module")
def sample(home):
    """The sample file applied while nothing of it exists, and then what it names; the worker's id."""
    assert signs(home) == dict.fromkeys(NAMES, "+")
    waiting = {row["name"]: row for row in home.forwards()}
    assert {row["state"] for row in waiting.values()} == {"WAITING"}
    assert [waiting[name]["localPort"] for name in NAMES] == [8080, 3000, 9229]

    for cluster in ("production", "development"):
        home.aws().create_cluster(clusterName=cluster)
    home.service("webapp", cluster="production", taskDefinition="webapp", count=2)
    home.service("api", cluster="production", taskDefinition="api", count=1)
    return worker(home, Environment="dev", Component="worker")


def signs(home, *arguments, file=SAMPLE):
    """Run the file; return the sign of each forward."""
    plan = home.json("port-forward", "run", "--config", str(file), *arguments)
    return {step["name"]: step["sign"] for step in plan["steps"]}


def run_task(home, family, until_it_is="RUNNING", *, cluster, **tags):
    """Run a task and wait until it is what is said; return its ARN."""
    aws = home.aws()
    started = aws.run_task(
        cluster=cluster,
        taskDefinition=family,
        networkConfiguration=NETWORK,
        tags=[{"key": key, "value": value} for key, value in tags.items()],
    )
    arn = started["tasks"][0]["taskArn"]
    until(
        lambda: aws.describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0]["lastStatus"] == until_it_is,
        f"the task of {family} is {until_it_is}",
        seconds=60,
        every=0.1,
    )
    return arn


def worker(home, **tags):
    """Run a task with these tags in `development`; return its id when it runs."""
    return tasks.id_of(run_task(home, "worker", cluster="development", **tags))


def who(port, seconds=5):
    """Return the id of the task that answers on a new connection."""
    return service.answer(port, seconds=seconds).split()[1]


def running(home, name):
    """Return the ids of the tasks of a service in `production`."""
    arns = home.aws().list_tasks(cluster="production", serviceName=name)["taskArns"]
    return {tasks.id_of(arn) for arn in arns}


def test_the_sample_file_works_unchanged(home, sample):
    assert signs(home, "--wait", "60") == dict.fromkeys(NAMES, "=")
    in_production = {
        name: {
            tasks.id_of(arn)
            for arn in home.aws().list_tasks(cluster="production", serviceName=name)["taskArns"]
        }
        for name in ("webapp", "api")
    }
    assert who(8080) in in_production["webapp"]
    assert who(3000) in in_production["api"]
    assert who(9229) == sample

    # `autoReconnect: false`: another task has the tags now, and this one stays the forward's
    worker(home, Environment="dev", Component="worker")
    assert who(9229) == sample


def test_the_newest_task_with_the_tags_takes_over_and_with_none_left_connections_hold(home, sample):
    file = home.path / "tagged.yaml"
    file.write_text(TAGGED)
    older = worker(home, Part="newest")
    home.run("port-forward", "run", "--config", str(file), "--wait", "30")
    row = next(row for row in home.forwards() if row["name"] == "newest")
    port = row["localPort"]
    assert (row["chosen"]["taskId"], row["matched"], who(port)) == (older, 1, older)

    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    assert page(kept).split()[1] == older
    newer = worker(home, Part="newest")
    until(lambda: who(port) == newer, "the newer task takes over")
    assert {who(port) for _ in range(5)} == {newer}
    assert page(kept).split()[1] == older, "its connection stays"
    kept.close()

    for task in (older, newer):
        home.aws().stop_task(cluster="development", task=task)
    until(lambda: service.row(home, port)["state"] == "WAITING", "no task is left", seconds=30)
    assert "Part=newest" in service.row(home, port)["reason"]
    with ThreadPoolExecutor() as pool:
        held = pool.submit(who, port, 60)
        until(lambda: service.row(home, port)["connections"]["held"] == 1, "the client is held")
        last = worker(home, Part="newest")
        assert held.result() == last, "who waited was served"


def page(connection, path="/", host="localhost"):
    """Ask on this connection; return what is answered."""
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status == 200, body
    return body


@pytest.mark.parametrize("name", ["webapp", "api"])
def test_a_service_is_reached_by_its_name(home, sample, name):
    home.run("port-forward", "run", "--config", str(SAMPLE), "--names")
    port = home.json("status")["agentStatus"]["namesPort"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answered = page(connection, host=f"{name}.production.localhost:{port}")
    connection.close()
    assert answered.split()[1] in running(home, name)


def test_a_task_is_told_a_services_name_in_the_clusters_dns_and_finds_it_there(home, own, sample):
    """The tests' cluster has no DNS: the task writes down what it would answer, and asks by the name."""
    (found,) = [
        one
        for one in service.objects(own, home, "services")
        if one["metadata"]["labels"].get("kecs.dev/service") == "webapp"
    ]
    host = f"{found['metadata']['name']}.{found['metadata']['namespace']}.svc.cluster.local"
    script = (
        f'echo "{found["spec"]["clusterIP"]} {host}" >> /etc/hosts; '
        'echo "$KECS_URL_WEBAPP"; wget -qO- "$KECS_URL_WEBAPP"; echo'
    )
    tasks.define(home, tasks.shell(script), family="caller")
    arn = run_task(home, "caller", "STOPPED", cluster="production")
    url, answered = tasks.said(home, arn)
    assert url == f"http://{host}:80"
    assert answered.split()[1] in running(home, "webapp")
