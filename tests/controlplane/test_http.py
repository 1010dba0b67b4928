"""The ECS API as clients see it: through boto3, and byte by byte."""

import asyncio
import json
import logging
import re
import socket
import threading

import botocore.exceptions
import pytest

from kecs.controlplane import http
from kecs.controlplane.operations import OPERATIONS, Read, Write
from kecs.ecs.model import Cluster
from kecs.errors import KecsError
from kecs.wire.awsjson import MAX_BODY

PREFIX = "AmazonEC2ContainerServiceV20141113"


def request(operation="ListClusters", body=b"{}", *, host="localhost", method="POST", path="/", extra=()):
    """Return the bytes of a request, as an SDK writes them."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"X-Amz-Target: {PREFIX}.{operation}",
        "Content-Type: application/x-amz-json-1.1",
        *([f"Content-Length: {len(body)}"] if body is not None else []),
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class Answer:
    """One response read from a socket's file."""

    def __init__(self, file, *, head=False):
        self.status = int(file.readline().split()[1])
        self.headers = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = b"" if head else file.read(int(self.headers.get("content-length", 0)))

    @property
    def json(self):
        return json.loads(self.body)


def ask(api, data, **kwargs):
    with api.connect() as connection:
        connection.sendall(data)
        with connection.makefile("rb") as file:
            return Answer(file, **kwargs)


def error_of(call, **params):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**params)
    return caught.value.response


# Through boto3


def test_a_cluster_is_created_described_and_listed_in_the_region_of_the_signature(api):
    """The region comes from the credential scope, and each has its own clusters."""
    west = api.client("us-west-2")
    created = west.create_cluster(clusterName="web", tags=[{"key": "k", "value": "v"}])["cluster"]
    api.client("ap-south-1").create_cluster(clusterName="far")

    assert created["clusterArn"] == "arn:aws:ecs:us-west-2:123456789012:cluster/web"
    assert west.describe_clusters(clusters=["web"])["clusters"][0]["status"] == "ACTIVE"
    assert west.list_clusters()["clusterArns"] == [created["clusterArn"]]


def test_an_error_has_its_class_message_and_request_id(api):
    """botocore makes the modelled exception of it, which needs the right `__type` and status."""
    client = api.client()
    with pytest.raises(client.exceptions.ClusterNotFoundException, match=r"Cluster not found\.") as caught:
        client.delete_cluster(cluster="nobody")

    metadata = caught.value.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == 400
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["RequestId"])


def test_a_bad_parameter_is_refused_by_the_model_before_the_operation(api):
    """What botocore itself lets pass, the server's copy of the model does not."""
    client = api.client()
    strategy = [{"capacityProvider": "FARGATE", "weight": 5000}]
    call = client.put_cluster_capacity_providers
    answer = error_of(call, cluster="c", capacityProviders=[], defaultCapacityProviderStrategy=strategy)

    assert answer["Error"]["Code"] == "InvalidParameterException"
    assert "less than or equal to 1000" in answer["Error"]["Message"]


def test_pages_follow_each_other_to_the_end(api):
    """The paginator of botocore finds every cluster once, whatever the size of the page."""
    client = api.client()
    names = {f"c{number:02}" for number in range(23)}
    for name in names:
        client.create_cluster(clusterName=name)

    pages = list(client.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 10}))
    assert [len(page["clusterArns"]) for page in pages] == [10, 10, 3]
    assert {arn.rpartition("/")[2] for page in pages for arn in page["clusterArns"]} == names


def test_a_task_definition_goes_in_and_comes_back(api):
    """A nested document passes the wire, the store and the wire again."""
    client = api.client()
    containers = [
        {"name": "web", "image": "nginx", "command": ["sleep", "1"], "memory": 128,
         "environment": [{"name": "TEXT", "value": 'é " \u2028'}]}
    ]  # fmt: skip
    arn = client.register_task_definition(family="web", containerDefinitions=containers)["taskDefinition"][
        "taskDefinitionArn"
    ]

    found = client.describe_task_definition(taskDefinition="web")["taskDefinition"]
    assert found["taskDefinitionArn"] == arn
    assert found["containerDefinitions"][0]["environment"] == containers[0]["environment"]
    assert found["registeredAt"].tzinfo is not None


NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}


def test_a_service_is_created_updated_and_deleted(api):
    """The life of a service in the API: two deployments after the update, INACTIVE after its deletion."""
    client = api.client()
    client.create_cluster(clusterName="prod")
    for _ in range(2):
        client.register_task_definition(
            family="web",
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[{"name": "web", "image": "x", "command": ["true"], "memory": 64}],
        )
    created = client.create_service(
        cluster="prod",
        serviceName="web",
        taskDefinition="web:1",
        desiredCount=2,
        networkConfiguration=NETWORK,
    )["service"]
    assert created["serviceArn"] == "arn:aws:ecs:us-west-2:123456789012:service/prod/web"
    assert created["createdAt"].tzinfo is not None

    updated = client.update_service(cluster="prod", service="web", taskDefinition="web:2")["service"]
    assert [row["status"] for row in updated["deployments"]] == ["PRIMARY", "ACTIVE"]
    assert client.list_services(cluster="prod")["serviceArns"] == [created["serviceArn"]]

    with pytest.raises(client.exceptions.InvalidParameterException):
        client.delete_service(cluster="prod", service="web")
    client.delete_service(cluster="prod", service="web", force=True)
    described = client.describe_services(cluster="prod", services=["web", "nobody"])
    assert described["services"][0]["status"] in ("DRAINING", "INACTIVE")
    assert [row["reason"] for row in described["failures"]] == ["MISSING"]
    with pytest.raises(client.exceptions.ServiceNotActiveException):
        client.update_service(cluster="prod", service="web", desiredCount=1)


def test_a_task_is_run_described_tagged_and_stopped(api):
    """The life of a task in the API, and its tags."""
    client = api.client()
    client.create_cluster(clusterName="prod")
    client.register_task_definition(
        family="job", containerDefinitions=[{"name": "job", "image": "x", "command": ["true"], "memory": 64}]
    )
    task = client.run_task(cluster="prod", taskDefinition="job", startedBy="me")["tasks"][0]
    assert task["lastStatus"] == "PROVISIONING"
    assert client.list_tasks(cluster="prod", startedBy="me")["taskArns"] == [task["taskArn"]]

    client.tag_resource(resourceArn=task["taskArn"], tags=[{"key": "a", "value": "b"}])
    assert client.list_tags_for_resource(resourceArn=task["taskArn"])["tags"] == [{"key": "a", "value": "b"}]
    client.untag_resource(resourceArn=task["taskArn"], tagKeys=["a"])
    assert client.list_tags_for_resource(resourceArn=task["taskArn"])["tags"] == []

    stopped = client.stop_task(cluster="prod", task=task["taskArn"], reason="enough")["task"]
    assert (stopped["desiredStatus"], stopped["stopCode"]) == ("STOPPED", "UserInitiated")
    found = client.describe_tasks(cluster="prod", tasks=[task["taskArn"], "f" * 32])
    assert found["tasks"][0]["stoppedReason"] == "enough"
    assert found["failures"][0]["reason"] == "MISSING"


def test_what_was_answered_is_there_for_the_next_server(start_api):
    """The reply went out after the commit: another start of the same database has the cluster."""
    first = start_api()
    first.client().create_cluster(clusterName="kept")
    first.close()
    (first.folder / "controlplane.sock").unlink()

    assert len(start_api().client().list_clusters()["clusterArns"]) == 1


def test_an_operation_that_is_not_built_says_so_and_what_to_use(api):
    """HTTP 501 NotImplemented, never invented data."""
    answer = error_of(api.client().describe_service_deployments, serviceDeploymentArns=["arn"])

    assert answer["Error"]["Code"] == "NotImplemented"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert "use DescribeServices" in answer["Error"]["Message"]


def test_clients_by_ipv6_and_by_the_name_localhost_are_served(api):
    """The SDK's Host header is then `[::1]:port` or `localhost:port`."""
    for host in ("[::1]", "localhost"):
        assert api.client(host=host).list_clusters()["clusterArns"] == []


def test_many_clients_at_once_are_all_served(api):
    """Twenty threads that create clusters lose none."""
    clients = [api.client() for _ in range(20)]

    def create(number):
        for step in range(3):
            clients[number].create_cluster(clusterName=f"n{number}-{step}")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.store.state.scan(Cluster, "us-west-2")) == 60


# Faults


@pytest.fixture
def broken(monkeypatch):
    """Put an operation that fails in the place of ListClusters (a read) and CreateCluster (a write)."""

    def fail(*arguments):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(
        http, "OPERATIONS", {**OPERATIONS, "ListClusters": Read(fail), "CreateCluster": Write(fail)}
    )


@pytest.mark.parametrize("operation", ["ListClusters", "CreateCluster"])
def test_a_fault_of_ours_is_500_with_a_request_id_and_a_traceback_in_the_log(api, broken, caplog, operation):
    """The client learns the number, the log has the cause; the server goes on."""
    answer = ask(api, request(operation))

    assert answer.status == 500
    assert answer.json["__type"] == "ServerException"
    assert answer.headers["x-amzn-requestid"] in answer.json["message"]
    assert "secret detail" not in answer.body.decode()
    logged = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert answer.headers["x-amzn-requestid"] in logged.getMessage()
    assert "ZeroDivisionError: secret detail" in caplog.text
    assert ask(api, request("DescribeClusters")).status == 200


def test_a_disk_that_is_full_is_500_and_says_so(api, monkeypatch):
    """The store's error reaches the client with its hint, as one that an SDK tries again."""

    async def full(transaction):
        raise KecsError("no space left", "free some space")

    monkeypatch.setattr(api.store, "transact", full)
    answer = ask(api, request("CreateCluster"))

    assert answer.status == 500
    assert answer.json == {"__type": "ServerException", "message": "no space left (free some space)"}


def test_a_missing_model_is_an_error_of_each_request_and_no_crash(start_api, monkeypatch):
    """Without botocore's data the API says what is missing."""

    def missing():
        raise KecsError("botocore's model of ECS is not installed", "install KECS again")

    monkeypatch.setattr("kecs.controlplane.ecs_model.load", missing)
    api = start_api()

    for _ in range(2):
        answer = ask(api, request())
        assert answer.status == 500
        assert "not installed" in answer.json["message"]


# Byte by byte


def test_one_connection_carries_many_requests(api):
    """Keep-alive, one after the other and several at once (pipelined)."""
    with api.connect() as connection, connection.makefile("rb") as file:
        for _ in range(3):
            connection.sendall(request())
            assert Answer(file).json == {"clusterArns": []}
        connection.sendall(request("CreateCluster") + request() + request("Nothing"))
        assert [Answer(file).status for _ in range(3)] == [200, 200, 400]


def test_connection_close_is_obeyed(api):
    """The server ends the connection after the answer when the client asks for it."""
    with api.connect() as connection, connection.makefile("rb") as file:
        connection.sendall(request(extra=["Connection: close"]))
        assert Answer(file).status == 200
        assert file.read() == b""


def test_expect_100_continue_gets_its_interim_answer_before_the_body(api):
    """curl sends this for larger bodies, and waits."""
    body = b'{"clusterName": "later"}'
    with api.connect() as connection, connection.makefile("rb") as file:
        head = request("CreateCluster", None, extra=[f"Content-Length: {len(body)}", "Expect: 100-continue"])
        connection.sendall(head)
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        while file.readline() != b"\r\n":
            pass
        connection.sendall(body)
        assert Answer(file).json["cluster"]["clusterName"] == "later"


def test_a_chunked_body_is_read(api):
    """A body without a length, in two chunks."""
    chunks = b'D\r\n{"clusterName\r\n8\r\n": "ch"}\r\n0\r\n\r\n'
    answer = ask(api, request("CreateCluster", None, extra=["Transfer-Encoding: chunked"]) + chunks)

    assert answer.json["cluster"]["clusterName"] == "ch"


def test_a_request_that_comes_byte_by_byte_is_read(api):
    """No piece of it is taken for the whole."""
    with api.connect() as connection, connection.makefile("rb") as file:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request("CreateCluster", b'{"clusterName": "slow"}'):
            connection.sendall(bytes([byte]))
        assert Answer(file).json["cluster"]["clusterName"] == "slow"


def test_a_body_that_announces_too_much_is_refused_unread(api):
    """413 before a byte of it came, also to a client that waits for `100 Continue`."""
    extra = [f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue"]
    answer = ask(api, request(body=None, extra=extra))

    assert answer.status == 413
    assert answer.json["__type"] == "RequestEntityTooLargeException"


def test_a_body_that_grows_too_large_is_refused_and_the_connection_is_usable(api):
    """A chunked body has no announced length: it is refused once it is too large, the rest is dropped."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with api.connect() as connection, connection.makefile("rb") as file:
        connection.sendall(request(body=None, extra=["Transfer-Encoding: chunked"]))
        for _ in range(MAX_BODY // 0x10000 + 2):
            connection.sendall(chunk)
        assert Answer(file).status == 413
        connection.sendall(b"0\r\n\r\n" + request())
        assert Answer(file).status == 200


def test_the_largest_allowed_body_is_read(api):
    """The bound is the bound: one byte less than too much is no error."""
    body = b'{"clusterName": "big"' + b" " * (MAX_BODY - 22) + b"}"
    assert len(body) == MAX_BODY

    assert ask(api, request("CreateCluster", body)).status == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", None),
        (b"[]", "SerializationException"),
        (b"{", "SerializationException"),
        (b"\xff\xfe", "SerializationException"),
        (b'{"maxResults": "many"}', "SerializationException"),
        (b"[" * 100_000, "SerializationException"),
    ],
)
def test_a_body_that_is_no_json_object_is_a_serialization_exception(api, body, code):
    """An empty body stands for no parameters."""
    answer = ask(api, request(body=body))

    assert answer.json.get("__type") == code
    assert answer.status == (400 if code else 200)


@pytest.mark.parametrize(
    "target",
    ["", "ListClusters", "DynamoDB_20120810.ListTables", f"{PREFIX}.", f"{PREFIX}.Nothing", f"{PREFIX}.é"],
)
def test_an_unknown_operation_is_an_aws_error(api, target):
    """Another service's target, none, or one that ECS does not have."""
    data = request().replace(f"{PREFIX}.ListClusters".encode(), target.encode())
    answer = ask(api, data)

    assert answer.status == 400
    assert answer.json["__type"] == "UnknownOperationException"
    assert answer.headers["x-amzn-errortype"] == "UnknownOperationException"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["tls", "word", "no host", "two hosts", "two lengths"],
)
def test_garbage_ends_its_connection_and_nothing_else(api, garbage):
    """What is not HTTP, or has two meanings, gets 400 and the end; the next client is served."""
    with api.connect() as connection:
        connection.sendall(garbage)
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert ask(api, request()).status == 200


def test_a_client_that_leaves_in_the_middle_harms_nobody(api, caplog):
    """Half a head, half a body, a reset: nothing is done, nothing is logged as a fault."""
    whole = request("CreateCluster", b'{"clusterName": "half"}')
    for part in (whole[:30], whole[:-5]):
        with api.connect() as connection:
            connection.sendall(part)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert ask(api, request()).json == {"clusterArns": []}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_get_says_what_this_is_and_head_the_same_without_a_body(api):
    """Plain text for a person who opens the address; a health check may use HEAD."""
    got = ask(api, request(method="GET", body=None))
    head = ask(api, request(method="HEAD", body=None), head=True)

    assert got.status == head.status == 200
    assert got.headers["content-type"].startswith("text/plain")
    assert "Amazon ECS API" in got.body.decode()
    assert "instance `default`" in got.body.decode()
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/favicon.ico"), ("POST", "/x"), ("PUT", "/"), ("DELETE", "/")]
)
def test_other_paths_and_methods_are_404_in_aws_shape(api, method, path):
    """There is one resource, and nothing of the admin interface is on this port."""
    answer = ask(api, request(method=method, path=path))

    assert answer.status == 404
    assert answer.json["__type"] == "UnknownOperationException"


def test_the_admin_application_is_not_on_the_port(api):
    """`/_kecs/*` answers on the Unix socket only."""
    assert ask(api, request(method="GET", path="/_kecs/status", body=None)).status == 404
    assert api.admin_requests == []

    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as file:
        connection.connect(str(api.admin_path))
        connection.sendall(b"GET /_kecs/status HTTP/1.1\r\nHost: kecs\r\n\r\n")
        assert Answer(file).body == b"admin"
    assert api.admin_requests == ["/_kecs/status"]


def test_every_answer_has_a_date_and_a_request_id_of_its_own(api):
    """SDKs compare the date with their clock; people search the log for the id."""
    answers = [ask(api, request()) for _ in range(2)]

    assert all(
        re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.headers["date"]) for answer in answers
    )
    assert answers[0].headers["x-amzn-requestid"] != answers[1].headers["x-amzn-requestid"]


def test_an_unsigned_request_is_for_the_region_of_the_instance(api):
    """curl without a signature is a caller too."""
    answer = ask(api, request("CreateCluster", b'{"clusterName": "curl"}'))

    assert answer.json["cluster"]["clusterArn"] == "arn:aws:ecs:eu-west-1:123456789012:cluster/curl"


# Stopping


def test_stop_ends_idle_connections_at_once_and_lets_a_request_in_hand_finish(api):
    """The reply of a transaction that runs while the server stops still arrives."""
    with api.connect() as idle, api.connect() as busy, busy.makefile("rb") as file:
        idle.sendall(request())
        with idle.makefile("rb") as idle_file:
            assert Answer(idle_file).status == 200
        entered, opened = threading.Event(), threading.Event()

        async def hold():
            def block(tx):
                entered.set()
                assert opened.wait(20)

            return asyncio.ensure_future(api.store.transact(block))  # noqa: TID251

        blocked = api.run(hold())
        assert entered.wait(20)
        busy.sendall(request("CreateCluster", b'{"clusterName": "last"}'))
        while api.store._calls.empty():
            pass
        stopping = asyncio.run_coroutine_threadsafe(api.servers.stop(), api.loop)
        assert idle.recv(1) == b""
        opened.set()

        assert Answer(file).json["cluster"]["clusterName"] == "last"
        stopping.result(20)
        assert blocked.done()
    with pytest.raises(OSError):
        api.connect()


def test_stop_does_not_wait_for_ever_for_a_stream(start_api, monkeypatch):
    """A stream of the admin application that does not end is cut when the time is up."""
    monkeypatch.setattr("kecs.controlplane.servers.GRACE", 0.2)
    api = start_api()

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"line\n", "more_body": True})
        await asyncio.Event().wait()

    api.admin_answer = endless
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as file:
        connection.connect(str(api.admin_path))
        connection.sendall(b"GET /_kecs/endpoints HTTP/1.1\r\nHost: kecs\r\n\r\n")
        assert file.readline() == b"HTTP/1.1 200 OK\r\n"
        api.run(api.servers.stop())
        assert b"line" in file.read()
