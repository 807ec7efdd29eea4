"""The real hub client against a hub on loopback."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from tests.unit.trainer.resolved import ResolvedMemory
from tests.unit.trainer.sources.hub_server import COMMIT, Hub, serve
from trainyard_crds.runconfig import RunModelSource
from trainyard_trainer.errors import ConfigurationError, NotFoundError, NotPermittedError, SourceError, StopRequested
from trainyard_trainer.sources.hub import HubRepository, read_headers
from trainyard_trainer.sources.resolve import Access, LocalModel, resolve_file, resolve_model
from trainyard_trainer.sources.safetensors_headers import ModelHeaders

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "pytorch_model.bin": b"pickle",
    "modeling_tiny.py": b"code",
    "consolidated.safetensors": b"weights again",
    "onnx/model.safetensors": b"weights once more",
    "data/rows.jsonl": b'{"text": "x"}\n',
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "downloads"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # The client sleeps between retries; its module uses time for nothing else.
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _seconds: None))
    with serve(Hub(FILES)) as server:
        yield server


def fetch(hub: Hub, memory: ResolvedMemory | None = None, *, name: str = "org/tiny", **options: str) -> LocalModel:
    source = RunModelSource(source=f"hf://{name}", **options)
    return resolve_model(source, memory or ResolvedMemory(), lambda: None, Access(endpoint=hub.address))


def test_only_weights_configuration_and_tokenizer_are_fetched(hub: Hub) -> None:
    model = fetch(hub)
    names = sorted(path.name for path in model.path.rglob("*") if not path.is_dir())
    assert names == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert (model.name, model.revision, model.reference) == ("hf://org/tiny", COMMIT, "org/tiny")
    assert {token for _, _, token in hub.requests} == {"Bearer hf_secret"}


def test_revision_is_resolved_once_per_run(hub: Hub) -> None:
    memory = ResolvedMemory()
    assert fetch(hub, memory, revision="v1").revision == COMMIT
    hub.commit = "d" * 40
    assert fetch(hub, memory, revision="v1").revision == COMMIT
    assert fetch(hub, ResolvedMemory(), revision="v1").revision == hub.commit
    assert memory.values == {"commit:model:org/tiny@v1": COMMIT}


def test_cached_model_needs_no_hub(hub: Hub) -> None:
    memory = ResolvedMemory()
    path = fetch(hub, memory).path
    hub.refuse = (503, "")
    assert fetch(hub, memory).path == path


def test_dataset_file(hub: Hub) -> None:
    memory = ResolvedMemory()
    file = resolve_file("hf://org/rows/data/rows.jsonl", memory, lambda: None, Access(endpoint=hub.address))
    assert file.path.read_bytes() == FILES["data/rows.jsonl"]
    assert file.name == "hf://org/rows/data/rows.jsonl"
    assert memory.values == {"commit:dataset:org/rows@main": COMMIT}
    with pytest.raises(NotFoundError, match=r"no file hf://org/rows/none\.jsonl"):
        resolve_file("hf://org/rows/none.jsonl", memory, lambda: None, Access(endpoint=hub.address))


def test_missing_repository_revision_and_weights(hub: Hub) -> None:
    with pytest.raises(NotFoundError, match="The hub has no model hf://org/none") as caught:
        fetch(hub, name="org/none")
    assert "spec.model.source" in caught.value.advice
    assert "spec.model.credentialsSecret" in caught.value.advice
    with pytest.raises(NotFoundError, match="no revision 'v9' of hf://org/tiny"):
        fetch(hub, revision="v9")
    with pytest.raises(ConfigurationError, match="is not a valid repository"):
        fetch(hub, name="org/a..b")
    del hub.files["model.safetensors"]
    with pytest.raises(NotFoundError, match=r"hf://org/tiny has no \*.safetensors weights"):
        fetch(hub)


@pytest.mark.parametrize("refusal", [(403, "GatedRepo"), (401, "GatedRepo"), (401, ""), (403, "")])
@pytest.mark.parametrize("resolved", [False, True])
def test_refusal_names_the_credentials_field(hub: Hub, refusal: tuple[int, str], resolved: bool) -> None:
    hub.refuse = refusal
    memory = ResolvedMemory({"commit:model:org/tiny@main": COMMIT} if resolved else {})
    with pytest.raises(NotPermittedError, match="does not permit the download of hf://org/tiny") as caught:
        fetch(hub, memory)
    assert "spec.model.credentialsSecret" in caught.value.advice


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("\ufeffhf_secret", "begins with a byte-order mark"),
        ("\udcff\udcfehf_secret", "has an invalid character at position 1:"),
        ("hf_secr\u00e9t", "has an invalid character at position 8:"),
        ("hf_secret hf_other", "has an invalid character at position 10:"),
        ("hf_secret\thf_other", "has an invalid character at position 10:"),
    ],
)
@pytest.mark.parametrize("resolved", [False, True])
def test_invalid_token_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, problem: str, resolved: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    memory = ResolvedMemory({"commit:model:org/tiny@main": COMMIT} if resolved else {})
    with pytest.raises(NotPermittedError) as caught:
        fetch(hub, memory)
    assert caught.value.message.startswith(f"The hub token {problem}")
    assert "spec.model.credentialsSecret" in caught.value.advice
    assert "hf_" not in str(caught.value.__cause__) + caught.value.message + caught.value.advice
    assert hub.requests == []


def test_space_around_a_token_is_removed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_secret\r\n")
    fetch(hub)
    assert {token for _, _, token in hub.requests} == {"Bearer hf_secret"}


def headers_of(hub: Hub) -> ModelHeaders:
    return read_headers(HubRepository(kind="model", name="org/tiny", endpoint=hub.address))


def header(**tensors: list[int] | None) -> bytes:
    entries = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    content = json.dumps(entries).encode()
    return struct.pack("<Q", len(content)) + content


def test_header_longer_than_the_first_request_is_read_whole(hub: Hub) -> None:
    many = {f"tensor_{number}": [number, 2] for number in range(3000)}
    hub.files["model.safetensors"] = header(**many)
    assert len(hub.files["model.safetensors"]) > 200_000
    assert headers_of(hub).tensors == {name: tuple(shape) for name, shape in many.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model.safetensors": None}, r"hf://org/tiny has no \*.safetensors weights"),
        ({"model.safetensors": b"weights"}, "headers .* of hf://org/tiny cannot be read: .* too small"),
        ({"model.safetensors": b"x" * 100}, "headers .* of hf://org/tiny cannot be read: .* too big"),
        (
            {"model.safetensors": struct.pack("<Q", 3) + b"abc"},
            "headers .* of hf://org/tiny cannot be read: .* not json",
        ),
        (
            {"model.safetensors": None, "model.safetensors.index.json": b"["},
            "headers .* of hf://org/tiny cannot be read: Expecting value",
        ),
        ({"model.safetensors": struct.pack("<Q", 2) + b"[]"}, "headers .* of hf://org/tiny cannot be read: "),
        ({"model.safetensors": header(one=None)}, "headers .* of hf://org/tiny cannot be read: "),
        ({"config.json": None}, "The hub has no file hf://org/tiny/config.json"),
    ],
)
def test_unreadable_headers(hub: Hub, change: dict[str, bytes | None], sentence: str) -> None:
    hub.files = {name: content for name, content in {**hub.files, **change}.items() if content is not None}
    with pytest.raises(NotFoundError, match=sentence):
        headers_of(hub)


def test_headers_of_a_missing_model(hub: Hub) -> None:
    with pytest.raises(NotFoundError, match="The hub has no model hf://org/none"):
        read_headers(HubRepository(kind="model", name="org/none", endpoint=hub.address))
    hub.refuse = (500, "")
    with pytest.raises(SourceError, match="HTTP 500"):
        headers_of(hub)


def test_hub_error(hub: Hub) -> None:
    hub.refuse = (500, "")
    with pytest.raises(SourceError, match="HTTP 500"):
        fetch(hub)


def test_unreachable_hub(hub: Hub) -> None:
    hub.address = "http://127.0.0.1:9"
    with pytest.raises(SourceError, match="hf://org/tiny"):
        fetch(hub)


@pytest.mark.usefixtures("hub")
def test_unreachable_hub_for_a_dataset() -> None:
    memory = ResolvedMemory({"commit:dataset:org/rows@main": COMMIT})
    with pytest.raises(SourceError, match=r"The hub cannot be reached for hf://org/rows/x\.jsonl: .*refused"):
        resolve_file("hf://org/rows/x.jsonl", memory, lambda: None, Access(endpoint="http://127.0.0.1:9"))


def test_stop_request_is_polled_during_a_download(hub: Hub) -> None:
    def poll() -> None:
        raise StopRequested("Stopped on request.")

    with pytest.raises(StopRequested):
        resolve_model(RunModelSource(source="hf://org/tiny"), ResolvedMemory(), poll, Access(endpoint=hub.address))
