import shutil
from collections.abc import Iterator

import pytest

from tests.unit.serving.reader_process import Reader, serving


@pytest.fixture(scope="module")
def reader_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    with serving(Reader(folder / "claim", folder / "secrets")) as process:
        yield process


@pytest.fixture
def reader(reader_process: Reader) -> Iterator[Reader]:
    """The artifact reader of an empty claim; a test may change its claim, and the credentials of its clients."""
    credentials = {path: path.read_bytes() for path in (reader_process.authorities, reader_process.token_file)}
    shutil.rmtree(reader_process.claim, ignore_errors=True)
    reader_process.claim.mkdir()
    yield reader_process
    for path, content in credentials.items():
        path.write_bytes(content)
