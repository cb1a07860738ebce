"""docs/flags.md, generated from the commands."""

import inspect
from collections.abc import Iterator

import click

from docs.generate.table import code, header, row
from exporter.cli.commands import main

NAME = "cartesia-exporter"
HEADER = header("flag", "default", "meaning")
_INTRODUCTION = f"""\
# Commands and flags

Made by `make docs` out of the commands; `{NAME} COMMAND --help` says the same. Every command \
has `--help`, or `-h`, and ends with 0, with 1 when something failed at run time, and with 2 \
when the usage, the configuration or the state file has to be mended first. A secret is never a \
flag.
"""

_COMPLETION = f"""\
## Completion

The shell completes commands, flags and their values after one of these lines, which belong into \
the shell's start file:

```
eval "$(_CARTESIA_EXPORTER_COMPLETE=bash_source {NAME})"   # ~/.bashrc; bash 4.4 or newer
eval "$(_CARTESIA_EXPORTER_COMPLETE=zsh_source {NAME})"    # ~/.zshrc
_CARTESIA_EXPORTER_COMPLETE=fish_source {NAME} | source    # ~/.config/fish/config.fish
```

Each line starts the program once; to save that time, write its output into a file and source that.
"""


def commands(
    command: click.Command = main, parent: click.Context | None = None, name: str = NAME
) -> Iterator[tuple[str, click.Context]]:
    """Yield the words and the context of each command that is no group."""
    # With the settings of a real run: click keeps the names of --help that it sees first.
    settings = {**command.context_settings, "terminal_width": 1000, "max_content_width": 1000}
    context = click.Context(command, parent, name, **settings)
    if not isinstance(command, click.Group):
        yield context.command_path.removeprefix(f"{NAME} "), context
        return
    leaves_first = sorted(
        command.commands.items(), key=lambda each: isinstance(each[1], click.Group)
    )
    for each, inner in leaves_first:
        yield from commands(inner, context, each)


def flag_table(words: str) -> str:
    """Return the table of a command's flags, empty when --help is the only one."""
    context = dict(commands())[words]
    rows = [row(_cells(option, context)) for option in options_of(context)]
    return "\n".join([HEADER, *rows]) if rows else ""


def options_of(context: click.Context) -> list[click.Option]:
    """Return the flags of a command, without --help."""
    own = context.command.get_params(context)
    return [each for each in own if isinstance(each, click.Option) and "--help" not in each.opts]


def _cells(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    value = "" if option.is_flag else f" {option.make_metavar(context)}".removesuffix(" RANGE")
    value_in_help = option.get_help_extra(context).get("default", "")
    default = "required" if option.required else code(str(value_in_help))
    return code(f"{max(option.opts, key=len)}{value}"), default, f"{option.help}{_limits(option)}"


def _limits(option: click.Option) -> str:
    limit = option.type
    if not isinstance(limit, click.IntRange | click.FloatRange):
        return ""
    return f" At least {limit.min}." if limit.max is None else f" From {limit.min} to {limit.max}."


def render() -> str:
    """Return the document."""
    return "\n".join([_INTRODUCTION, *(_section(*each) for each in commands()), _COMPLETION])


def _section(words: str, context: click.Context) -> str:
    usage = context.command.get_usage(context).removeprefix("Usage: ")
    description = inspect.cleandoc(context.command.help or "")
    blocks = [f"## {words}", f"```\n{usage}\n```", description, flag_table(words)]
    return "\n\n".join(block for block in blocks if block) + "\n"
