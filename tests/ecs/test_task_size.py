import pytest

from kecs.ecs import task_size
from kecs.ecs.errors import ClientException


@pytest.mark.parametrize(
    ("text", "units"),
    [("256", "256"), (".25 vCPU", "256"), ("1vcpu", "1024"), ("2 VCPU", "2048"), ("0.5 vCPU", "512")],
)
def test_cpu_is_converted_to_units(text, units):
    assert task_size.cpu_units(text) == units


@pytest.mark.parametrize(
    ("text", "mib"), [("512", "512"), ("0.5GB", "512"), ("1 GB", "1024"), ("30 gb", "30720")]
)
def test_memory_is_converted_to_mib(text, mib):
    assert task_size.memory_mib(text) == mib


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "127", "196609", "0.3333 vCPU", "1 GB", "9" * 400, "1..5 vCPU"]
)
def test_cpu_that_is_none(text):
    with pytest.raises(ClientException):
        task_size.cpu_units(text)


@pytest.mark.parametrize("text", ["", "x", "0", "1 vCPU", "0.00001 GB", "9" * 400])
def test_memory_that_is_none(text):
    with pytest.raises(ClientException):
        task_size.memory_mib(text)


@pytest.mark.parametrize(
    ("cpu", "memory"),
    [("256", "512"), ("256", "2048"), ("512", "4096"), ("1024", "8192"), ("2048", "16384"), ("4096", "30720"),
     ("8192", "20480"), ("16384", "122880")],
)  # fmt: skip
def test_sizes_that_fargate_has(cpu, memory):
    task_size.check_fargate(cpu, memory)


@pytest.mark.parametrize(
    ("cpu", "memory", "message"),
    [
        (None, "512", "'cpu' be defined at the task level"),
        ("256", None, "'memory' be defined at the task level"),
        ("256", "128", "No Fargate configuration exists for given values: 256 CPU, 128 memory"),
        ("300", "512", "No Fargate"),
        ("8192", "17408", "No Fargate"),
    ],
)
def test_sizes_that_fargate_has_not(cpu, memory, message):
    with pytest.raises(ClientException, match=message):
        task_size.check_fargate(cpu, memory)
