"""``explain``: why a stream has the value that it has."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from hs_stream.cli.common import (
    Config,
    catalog_of,
    find_record,
    guarded,
    now_ms,
    parse_stream,
    reading_store,
    run,
    say,
    settings_of,
)
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.time import parse_time
from hs_stream.core.visible import visible_json
from hs_stream.engine.explain import LIMITS, Explanation, Limits
from hs_stream.service.explaining import explain_stored, explanation_json, explanation_text

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(explain)


@guarded
def explain(
    stream: Annotated[str, typer.Argument(help="name, or name[house=1,room=kitchen]")],
    at: Annotated[str | None, typer.Option(help="The time of the value; ISO 8601. Without it the newest one.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="How many levels of inputs.")] = LIMITS.depth,
    rows: Annotated[
        int, typer.Option(min=1, max=1000, help="How many instances of each stream: the first and the last so many.")
    ] = LIMITS.rows,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    config: Config = None,
) -> None:
    """Say why a stream has a value: what was read for it, by which tools, down to the readings, and what changes it."""
    settings = settings_of(config)
    wanted = parse_stream(stream)
    try:
        time = None if at is None else parse_time(at, now=now_ms())
    except ValueError as error:
        raise ConfigurationError(f"--at: {error}") from None
    workflows = catalog_of(settings).workflows

    async def look() -> Explanation:
        async with reading_store(settings) as store:
            await find_record(store, stream)
            return await explain_stored(store, workflows, wanted, time, Limits(depth=depth, rows=rows))

    document = explanation_json(run(look()), workflows)
    if as_json:
        say(visible_json(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()))
    else:
        say(explanation_text(document))
