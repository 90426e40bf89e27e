"""The first tables: cases, answers, photographs, readings, outcomes. Imports Alembic and SQLAlchemy."""

import sqlalchemy as sa
from alembic import op

from lesion_triage.errors import ConfigError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "cases",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("number", sa.String(9), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("arrived_at", moment, nullable=False),
        sa.Column("caller", sa.String(80), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("disposition", sa.String(40), nullable=False),
        sa.Column("priority_band", sa.Integer(), nullable=False),
        sa.Column("deadline_hours", sa.Float(), nullable=True),
        sa.Column("history", sa.Text(), nullable=False),
        sa.CheckConstraint("priority_band BETWEEN 1 AND 4", name="band"),
        sa.UniqueConstraint("number"),
    )
    op.create_table(
        "answers",
        _of_a_case(primary_key=True),
        sa.Column("language", sa.String(35), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "photographs",
        _of_a_case(primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("media_type", sa.String(20), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "readings",
        sa.Column("id", sa.Integer(), primary_key=True),
        _of_a_case(),
        sa.Column("at", moment, nullable=False),
        sa.Column("caller", sa.String(80), nullable=False),
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("decision IN ('agree', 'override')", name="decision"),
    )
    op.create_index("ix_readings_case_id", "readings", ["case_id"])
    op.create_table(
        "outcomes",
        sa.Column("id", sa.Integer(), primary_key=True),
        _of_a_case(),
        sa.Column("at", moment, nullable=False),
        sa.Column("caller", sa.String(80), nullable=False),
        sa.Column("reader", sa.String(80), nullable=False),
        sa.Column("needs_in_person", sa.Boolean(), nullable=True),
        sa.Column("confirmed_by", sa.String(30), nullable=False),
    )
    op.create_index("ix_outcomes_case_id", "outcomes", ["case_id"])


def downgrade() -> None:
    """Refused: it would delete what clinicians have written."""
    raise ConfigError("There is no way back from these tables: restore the copy that was made before.")


def _of_a_case(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "case_id",
        sa.Integer(),
        sa.ForeignKey("cases.id", ondelete="CASCADE"),
        primary_key=primary_key,
        autoincrement=False,
        nullable=False,
    )
