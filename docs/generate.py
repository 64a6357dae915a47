"""Writes docs/cli.md and docs/study-file.md from the code: `make docs`. A test checks that they are up to date."""

from __future__ import annotations

import inspect
import sys
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hpsearch.cli.main import GROUPS, app
from hpsearch.config.components import BUILT_IN, TRAINER_OPTIONS, Option
from hpsearch.config.paths import bundled_studies
from hpsearch.config.sections import Section, sections_of
from hpsearch.config.study_file import Contents
from hpsearch.formatting import str_of

DOCS = Path(__file__).resolve().parent
WRITTEN_BY = "<!-- Written by docs/generate.py from the code: `make docs`. -->\n"

EXIT_CODES = """
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed: the search gave up, or something went wrong that the user did not cause |
| 2 | wrong usage, study file, data or storage; nothing was written |
| 3 | the server of the database was out of reach for two minutes; nothing is lost, and the same command continues |
| 130, 143 | stopped by Ctrl-C or by SIGTERM; running trials are back in the queue, and the same command continues |

Results go to stdout; progress and errors go to stderr. `--json` prints a result as data. NO_COLOR is honoured. An error has
one line that says what was expected and what was found, and one line that says what to do. `--debug`, anywhere, adds the traceback.

STUDY is the name of a study or a study file in every command: a text that ends in `.toml` or holds a `/` is a file.
"""


def cli_page() -> str:
    """Return docs/cli.md: the commands in their groups, then each with its arguments and options."""
    context = typer.Context(typer.main.get_command(app), info_name="hpsearch")
    group: Any = context.command
    parts = [WRITTEN_BY, "# The command line\n", f"{group.help}\n"]
    for title, commands in GROUPS.items():
        parts.append(f"| {title.lower()} | |\n| --- | --- |")
        parts += [f"| [`hpsearch {name}`](#hpsearch-{name}) | {entry.summary} |" for name, entry in commands.items()]
        parts.append("")
    parts.append(EXIT_CODES)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        parts.append(
            f"## hpsearch {name}\n\n{_paragraphs(command.help)}\n\n```\nhpsearch {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
        )
        rows = [
            _parameter(parameter) for parameter in command.params if not getattr(parameter, "hidden", False) and parameter.name != "help"
        ]
        if rows:
            parts.append("| argument or option | meaning |\n| --- | --- |\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def study_file_page() -> str:
    """docs/study-file.md: sections, the search space, and the tables of components."""
    example = (bundled_studies() / "cnn-vs-lenet5.toml").read_text()
    parts = [
        WRITTEN_BY,
        "# The study file\n",
        "A study file describes a search. It is TOML; an unknown key is an error, and an error names the key, the rule, the value",
        "and a likely fix. `hpsearch init` writes one with a JSON Schema beside it; `hpsearch check` explains one.\n",
        f"```toml\n{example}```\n",
        "## Keys\n",
        _section_rows(Contents),
    ]
    for name, section in sections_of(Contents).items():
        parts.append(f"\n## [{name}]\n\n{inspect.getdoc(section) or ''}\n\n{_section_rows(section)}")
    parts.append((DOCS / "search-space.md.part").read_text())
    parts.append("## The trainer's options\n\n" + _option_rows(TRAINER_OPTIONS))
    for kind, title in (("model", "Models"), ("optimizer", "Optimizers"), ("schedule", "Schedules"), ("dataset", "Data sets")):
        parts.append(f"\n## {title}\n")
        for component in BUILT_IN:
            if component.kind == kind:
                parts.append(f"### {component.name}\n\n{component.help}\n")
                if component.options:
                    parts.append(_option_rows(component.options) + "\n")
    return "\n".join(parts).rstrip() + "\n"


def _paragraphs(text: str | None) -> str:
    return "\n".join(line.strip() for line in (text or "").strip().splitlines())


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar
    else:
        name = ", ".join(parameter.opts) + (f" {parameter.metavar}" if parameter.metavar else "" if parameter.is_flag else " N")
    default = parameter.default
    shown = "" if default in (None, False, ...) or callable(default) or parameter.required else f" [default: {default}]"
    return f"| `{name}` | {(parameter.help or '').replace('|', '/')}{shown} |"


def _section_rows(section: type[Section]) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in section.model_fields.items():
        meaning = field.description or (f"see [{key}]" if key in sections_of(section) else "")
        default = "required" if field.is_required() else _default(field)
        rows.append(f"| `{field.alias or key}` | {'table' if key in sections_of(section) else _type_name(field)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value in (None, [], "") or isinstance(value, Section) else f"`{value}`"


def _type_name(field: FieldInfo) -> str:
    if any("parse_duration" in repr(item) for item in [field.annotation, *get_args(field.annotation), *field.metadata]):
        return 'duration: "2h", "10m", "1h30m"'
    annotation: Any = field.annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] if _is_union(annotation) else [annotation]
    kind = kinds[0]
    if "Literal" in repr(kind):
        choices = [choice for each in kinds for choice in get_args(each)]
        return " \\| ".join(f'`"{choice}"`' for choice in choices)
    while get_origin(kind) is not None and kind.__class__.__name__ == "_AnnotatedAlias":
        kind = get_args(kind)[0]
    names = {int: "whole number", float: "number", str: "string", bool: "true or false"}
    return names.get(kind, {list: "list", dict: "table"}.get(get_origin(kind) or kind, str(kind)))


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or "Union" in repr(get_origin(annotation)) or "Optional" in repr(annotation)


def _option_rows(options: tuple[Option, ...]) -> str:
    rows = ["| option | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{option.name}` | {str_of(option.default)} | {option.allowed} | {option.help} |" for option in options]
    return "\n".join(rows) + "\n"


PAGES = {"cli.md": cli_page, "study-file.md": study_file_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")
