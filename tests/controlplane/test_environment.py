"""A container's variables: files, definition, overrides, secrets, in ECS's order."""

import pytest

from kecs.controlplane.environment import (
    MissingResourceError,
    environment_of,
    parse_environment_file,
    read_environment_file,
    resolve_secret,
)

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-a1B2c3"
PARAMETER = "arn:aws:ssm:us-east-1:123456789012:parameter/prod/key"
NOTHING = {"secrets": {}, "s3": None}


def put_file(s3, bucket, key, text):
    path = s3 / bucket / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {"value": f"arn:aws:s3:::{bucket}/{key}", "type": "s3"}


def test_environment_wins_over_files_and_overrides_win_over_both(short_path):
    first = put_file(short_path, "b", "first.env", "A=file1\nB=file1\nC=file1\n")
    second = put_file(short_path, "b", "dir/second.env", "C=file2\nD=file2\n")
    container = {
        "environmentFiles": [first, second],
        "environment": [{"name": "B", "value": "definition"}, {"name": "E", "value": "definition"}],
    }
    override = {"environment": [{"name": "E", "value": "override"}]}

    found = environment_of(container, override, secrets={}, s3=short_path)

    assert found == {"A": "file1", "B": "definition", "C": "file1", "D": "file2", "E": "override"}


def test_files_of_an_override_stand_in_for_those_of_the_definition(short_path):
    one = put_file(short_path, "b", "one.env", "A=1\n")
    other = put_file(short_path, "b", "other.env", "B=2\n")

    found = environment_of(
        {"environmentFiles": [one]}, {"environmentFiles": [other]}, secrets={}, s3=short_path
    )

    assert found == {"B": "2"}


def test_an_environment_file_is_read_as_ecs_reads_it():
    lines = ["# a comment", "", "A=1", ' B = "quoted" ', "C=x=y", "no equals", "=nameless", "D="]

    assert dict(parse_environment_file(lines)) == {"A": "1", "B ": ' "quoted"', "C": "x=y", "D": ""}


@pytest.mark.parametrize(
    ("arn", "why"),
    [
        ("arn:aws:s3:::bucket/gone.env", "No such file"),
        ("arn:aws:s3:::bucket/../../secret.env", "leads out of its bucket"),
        ("s3://bucket/a.env", "is not the ARN of an S3 object"),
    ],
)
def test_a_file_that_cannot_be_read_names_itself(short_path, arn, why):
    (short_path / "s3").mkdir()
    (short_path / "secret.env").write_text("A=1")

    with pytest.raises(MissingResourceError, match=r"^ResourceInitializationError: .*env files") as told:
        read_environment_file(arn, short_path / "s3")

    assert arn in str(told.value)
    assert why in str(told.value)


@pytest.mark.parametrize(
    ("value_from", "name"),
    [
        (SECRET, SECRET),
        (SECRET, "prod/db-a1B2c3"),
        (SECRET, "prod/db"),
        (PARAMETER, "prod/key"),
        (PARAMETER, "/prod/key"),
        (PARAMETER, PARAMETER),
        ("/prod/key", "prod/key"),
        ("prod/key", "/prod/key"),
        ("plain", "plain"),
        (f"{SECRET}::AWSPREVIOUS:", "prod/db"),
    ],
)
def test_a_secret_is_found_by_each_of_its_names(value_from, name):
    assert resolve_secret(value_from, {name: "value", "other": "no"}) == "value"


def test_a_json_key_selects_from_the_value():
    secrets = {"prod/db": '{"user": "u", "port": 5432}'}

    assert resolve_secret(f"{SECRET}:user::", secrets) == "u"
    assert resolve_secret(f"{SECRET}:port::", secrets) == "5432"


def test_a_value_set_for_the_whole_reference_is_taken_as_it_is():
    assert resolve_secret(f"{SECRET}:user::", {f"{SECRET}:user::": "plain"}) == "plain"
    assert resolve_secret(f"{SECRET}:user::", {f"{SECRET}:user::": '{"user": ""}'}) == ""


@pytest.mark.parametrize(
    ("value_from", "secrets", "store"),
    [(SECRET, {}, "asm"), (f"{SECRET}:key::", {"prod/db": "{}"}, "asm"), (PARAMETER, {"prod": "x"}, "ssm")],
)
def test_a_missing_secret_says_how_to_set_it(value_from, secrets, store):
    with pytest.raises(MissingResourceError) as told:
        resolve_secret(value_from, secrets)

    text = str(told.value)
    assert text.startswith("ResourceInitializationError: unable to pull secrets or registry auth: ")
    assert f"from {store}:" in text
    assert "kecs secrets set prod/" in text


def test_secrets_are_variables_too():
    container = {"secrets": [{"name": "PASSWORD", "valueFrom": "db"}]}

    assert environment_of(container, {}, secrets={"db": "hunter2"}, s3=None) == {"PASSWORD": "hunter2"}
