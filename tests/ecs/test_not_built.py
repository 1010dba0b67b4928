from kecs.ecs import not_built

from .shapes import model


def test_an_operation_that_is_not_built_says_so_and_what_to_use():
    error = not_built.not_built("ExecuteCommand")

    assert (error.code, error.status) == ("NotImplemented", 501)
    assert error.message.startswith(
        "KECS does not have the operation ExecuteCommand yet. Instead, use `kecs logs`"
    )
    assert "There are no container instances" in not_built.not_built("ListContainerInstances").message
    assert not_built.not_built("CreateDaemon").message == "KECS does not have the operation CreateDaemon yet."


def test_what_is_advised_about_are_operations_of_the_model():
    assert not [operation for operation in not_built.INSTEAD if not model().is_known(operation)]
