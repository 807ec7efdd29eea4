"""The demo reads what the trainer's compare command prints."""

from demo.compare import compare_arguments, parse_comparison


def test_report_and_losses_are_parsed() -> None:
    output = 'Held-out loss\n  before 4.5\n{"evalLoss": {"before": 4.5, "after": 2.5, "afterShuffled": 3.0}}\n'

    found = parse_comparison(output)

    assert found.report == "Held-out loss\n  before 4.5"
    assert (found.before, found.after, found.after_shuffled) == (4.5, 2.5, 3.0)


def test_arguments_name_files_and_method() -> None:
    arguments = compare_arguments(model="/m", adapter="/a", data="/d.jsonl", method="qlora")

    assert arguments[:3] == ["-m", "trainyard_trainer", "compare"]
    assert arguments[3:-1] == ["--model", "/m", "--adapter", "/a", "--data", "/d.jsonl", "--method", "qlora"]
    assert arguments[-1] == "--json"
