"""What Prefect shows of a run must never cost the run."""

import logging

from labelmill.flows import artifacts
from labelmill.flows.artifacts import publish_outcome
from labelmill.schemas.outcomes import Outcome

OUTCOME = Outcome(
    title="relabel a|b", table="pets.label_maps", version=2, images=3, done=2, rejected={"empty": 1}, seconds=1.0,
    worked=3, facts={"report": "/a|b"},
)  # fmt: skip


def test_publish_outcome_gives_a_table_and_a_text_under_keys_of_the_table(monkeypatch):
    made = []
    for name in ("create_table_artifact", "create_markdown_artifact"):
        monkeypatch.setattr(artifacts, name, lambda content, *, key, description: made.append((key, content)))
    publish_outcome(OUTCOME)
    (table_key, rows), (text_key, text) = made
    assert (table_key, text_key) == ("pets-label-maps", "pets-label-maps-report")
    assert {"": "empty", "value": "1"} in rows
    assert "| report | /a\\|b |" in text


def test_publish_outcome_while_the_server_is_away_says_so_and_goes_on(monkeypatch, caplog):
    def away(*given, **options):
        raise ConnectionError("no answer")

    monkeypatch.setattr(artifacts, "create_table_artifact", away)
    monkeypatch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("run"))
    publish_outcome(OUTCOME)
    assert "the outcome could not be shown: no answer" in caplog.text
