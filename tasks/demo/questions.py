"""Questions to the demo's store, in SQL that a user can type again."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.tasks.store import Store
from labelmill.tasks.store.views import quote

DATASET = "demo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question in words and as a query over the store's views."""

    words: str
    query: str


def ask_questions(scene_id: str) -> tuple[Question, ...]:
    """Return the demo's questions; `scene_id` is an image that holds two things."""
    return (
        Question(
            words=f"What is in {scene_id}, whose single label names only one of two things?",
            query=(
                "SELECT class_name, cells FROM demo.label_classes\n"  # noqa: S608 - quoted below
                f"WHERE image_id = {quote(scene_id)} ORDER BY cells DESC, class_id LIMIT 6"
            ),
        ),
        Question(
            words="Which images does the teacher see as something else than their label? The surest first.",
            query=(
                "SELECT image_id, label_name, pooled_name, round(pooled_prob, 2) AS prob FROM demo.label_maps\n"
                "WHERE pooled_class <> label ORDER BY pooled_prob DESC, image_id LIMIT 6"
            ),
        ),
        Question(
            words="How sure is the teacher of the images of each label, and how often does it agree?",
            query=(
                "SELECT label_name, count(*) AS images, round(avg(pooled_prob), 2) AS mean_prob,\n"
                "  count(*) FILTER (pooled_class = label) AS agree\n"
                "FROM demo.label_maps WHERE status = 'done' GROUP BY label_name ORDER BY mean_prob DESC, label_name"
            ),
        ),
        Question(
            words="In which images do two or more classes lead at least a tenth of the cells each?",
            query=(
                "SELECT image_id,\n"
                "  string_agg(split_part(class_name, ',', 1) || ' ' || cells, ' + ' ORDER BY cells DESC) AS classes\n"
                "FROM demo.label_classes JOIN (SELECT image_id, sum(cells) AS all_cells FROM demo.label_classes\n"
                "  GROUP BY image_id) USING (image_id)\n"
                "WHERE cells >= all_cells / 10 GROUP BY image_id HAVING count(*) >= 2\n"
                "ORDER BY count(*) DESC, image_id LIMIT 6"
            ),
        ),
    )


def answer(store: Store, question: Question) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the column names and the rows of a question's answer."""
    with store.connect() as sql:
        sql.execute(question.query)
        return [column[0] for column in sql.description], sql.fetchall()
