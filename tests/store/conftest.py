import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def short_path():
    """A temporary folder under a short path."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="kecs-"))
    yield path
    shutil.rmtree(path)
