"""Which cases were drawn for follow-up, and with what probability. Imports Alembic and SQLAlchemy."""

import sqlalchemy as sa
from alembic import op

from lesion_triage.errors import ConfigError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of the cases that are there none was drawn, nor could it have been."""
    share = sa.Column("follow_up_share", sa.Float(), nullable=False, server_default=sa.text("0"))
    op.add_column("cases", share)
    op.add_column("cases", sa.Column("drawn", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Refused: it would forget which cases were drawn."""
    raise ConfigError("There is no way back from these tables: restore the copy that was made before.")
