"""The oracle is botocore: its serializer and signer write the requests, its parser reads the answers."""

from __future__ import annotations

import datetime
import functools
import json
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from kecs.wire import awsjson

PREFIX = "AmazonEC2ContainerServiceV20141113"


@functools.cache
def service_model():
    return botocore.session.Session().get_service_model("ecs")


def request(operation, params, auth=SigV4Auth, region="eu-west-1"):
    """Return (headers, query, body) of a request as botocore sends it."""
    shape = service_model().operation_model(operation)
    serialized = create_serializer("json").serialize_to_request(params, shape)
    signed = AWSRequest(
        "POST", "http://127.0.0.1:5373/", data=serialized["body"], headers=serialized["headers"]
    )
    if auth:
        auth(Credentials("AKIDEXAMPLE", "secret"), "ecs", region).add_auth(signed)
    headers = {name.lower(): value for name, value in signed.headers.items()}
    return headers, urlsplit(signed.prepare().url).query, serialized["body"]


def read(headers, query="", body=b"{}"):
    return awsjson.read_call(
        headers, query, body, target_prefix=PREFIX, default_region="us-east-1", request_id="r-1"
    )


def target(operation="ListClusters"):
    return {"x-amz-target": f"{PREFIX}.{operation}"}


@pytest.mark.parametrize("auth", [SigV4Auth, SigV4QueryAuth])
def test_a_signed_request_becomes_a_call(auth):
    params = {"taskDefinition": "wéb:1", "count": 2, "overrides": {"cpu": "256"}}

    call = read(*request("RunTask", params, auth))

    assert call == awsjson.Call("RunTask", params, "eu-west-1", "r-1", "AKIDEXAMPLE")


def test_an_unsigned_request_is_for_the_default_region():
    call = read(*request("ListClusters", {}, auth=None))

    assert (call.region, call.access_key_id, call.params) == ("us-east-1", None, {})


def test_a_request_for_several_regions_goes_to_the_first():
    """SigV4A has no region in the scope."""
    authorization = "AWS4-ECDSA-P256-SHA256 Credential=AKID/20240101/ecs/aws4_request, SignedHeaders=host"

    call = read({**target(), "authorization": authorization, "x-amz-region-set": "eu-west-1,us-east-1"})

    assert call.region == "eu-west-1"


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "AKID",
        "AKID/20240101/us-east-1/ecs",
        "AKID/20240101/us_east/ecs/aws4_request",
        "/20240101/us-east-1/ecs/aws4_request",
        "AKID/20240101//ecs/aws4_request",
        "AKID/20240101/ecs/aws4_request",
    ],
)
def test_a_credential_that_is_none_is_refused(credential):
    with pytest.raises(awsjson.AwsJsonError) as caught:
        read({**target(), "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, Signature=0"})

    assert (caught.value.code, caught.value.status) == ("IncompleteSignatureException", 400)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-amz-target": "ListClusters"},
        {"x-amz-target": "DynamoDB_20120810.ListTables"},
        {"x-amz-target": f"{PREFIX}."},
        {"x-amz-target": f"{PREFIX}.a/b"},
        {"x-amz-target": f"x.{PREFIX}.RunTask"},
    ],
)
def test_a_missing_or_foreign_target_is_an_unknown_operation(headers):
    with pytest.raises(awsjson.AwsJsonError) as caught:
        read(headers)

    assert (caught.value.code, caught.value.status) == ("UnknownOperationException", 400)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b'{"a": NaN}', b"[" * 200_000, b"{} {}"]
)
def test_a_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(awsjson.AwsJsonError) as caught:
        read(target(), body=body)

    assert caught.value.code == "SerializationException"


def test_an_empty_body_has_no_parameters():
    assert read(target(), body=b"").params == {}


def test_a_body_over_the_cap_is_refused_and_one_at_it_is_not():
    largest = b'{"a":"' + b"x" * (awsjson.MAX_BODY - 8) + b'"}'

    assert len(read(target(), body=largest).params["a"]) == awsjson.MAX_BODY - 8
    with pytest.raises(awsjson.AwsJsonError) as caught:
        read(target(), body=largest + b" ")
    assert (caught.value.code, caught.value.status) == ("RequestEntityTooLargeException", 413)


def parse(operation, response):
    shape = service_model().operation_model(operation).output_shape
    seen = {"status_code": response.status, "headers": dict(response.headers), "body": response.body}
    return create_parser("json").parse(seen, shape)


def test_botocore_reads_a_result_as_it_was_meant():
    response = awsjson.result("r-1", {"tasks": [{"taskArn": "é", "createdAt": 1700000000.5}], "failures": []})

    parsed = parse("DescribeTasks", response)

    assert parsed["tasks"][0]["taskArn"] == "é"
    assert parsed["tasks"][0]["createdAt"] == datetime.datetime.fromtimestamp(1700000000.5, datetime.UTC)
    assert parsed["ResponseMetadata"]["RequestId"] == "r-1"
    assert dict(response.headers)["content-length"] == str(len(response.body))
    assert dict(response.headers)["content-type"] == "application/x-amz-json-1.1"


def test_botocore_reads_an_error_as_it_was_meant():
    response = awsjson.error("r-1", "ConflictException", "Used before.", members={"resourceIds": ["a"]})

    parsed = parse("RunTask", response)

    assert response.status == 400
    assert parsed["Error"] == {"Code": "ConflictException", "Message": "Used before."}
    assert json.loads(response.body)["resourceIds"] == ["a"]
