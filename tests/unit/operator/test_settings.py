"""What the environment of the operator configures."""

import pytest

from trainyard_operator.errors import SettingsError
from trainyard_operator.settings import from_environment

REQUIRED = {"TRAINYARD_NAMESPACE": "trainyard", "TRAINYARD_TRAINER_IMAGE": "trainer:1"}


def test_variables_of_training_pods_come_as_one_json_object() -> None:
    found = from_environment({**REQUIRED, "TRAINYARD_TRAINING_ENV": '{"NCCL_DEBUG": "INFO"}'}, "host")
    assert found.render.environment == {"NCCL_DEBUG": "INFO"}
    assert from_environment(REQUIRED, "host").render.environment == {}


@pytest.mark.parametrize("text", ["NCCL_DEBUG=INFO", "[]", '{"A": 1}'])
def test_variables_that_are_no_object_of_texts_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="set a JSON object of texts"):
        from_environment({**REQUIRED, "TRAINYARD_TRAINING_ENV": text}, "host")


def test_who_decides_when_a_job_starts() -> None:
    assert from_environment(REQUIRED, "host").queue_mode == "Builtin"
    assert from_environment({**REQUIRED, "TRAINYARD_QUEUE_MODE": "Kueue"}, "host").local_queue is None
    kueue = {**REQUIRED, "TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_LOCAL_QUEUE": "gpus"}
    assert from_environment(kueue, "host").local_queue == "gpus"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TRAINYARD_QUEUE_MODE": "kueue"}, "set one of Builtin, Kueue"),
        ({"TRAINYARD_LOCAL_QUEUE": "gpus"}, "has no effect while TRAINYARD_QUEUE_MODE is Builtin; unset it"),
        ({"TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_QUEUE_POLICY": "/p"}, "TRAINYARD_QUEUE_POLICY is '/p' and has"),
        ({"TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_LOCAL_QUEUE": "GPUs"}, "set a Kubernetes name"),
    ],
)
def test_a_setting_of_the_other_queue_is_refused(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        from_environment({**REQUIRED, **variables}, "host")
