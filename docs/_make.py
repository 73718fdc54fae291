"""Generate the pages of commands, settings, the API, modules and layers from the code.

``conf.py`` calls this before every build. The pages are written to ``_made``, which git ignores.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MADE = HERE / "_made"
KINDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
EXAMPLES = re.compile(r"Examples?: *")
HUGE = 1e10
"""Larger bounds are not shown: they only reject malicious settings."""
BOUNDS = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))


def main(made: Path = MADE) -> None:
    """Write all pages to a folder that contains nothing else."""
    wanted = dict(pages())
    for old in sorted(made.rglob("*.md")) if made.is_dir() else ():
        if old.relative_to(made).as_posix() not in wanted:
            old.unlink()
    for name, content in wanted.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (
            not path.is_file() or path.read_text(encoding="utf-8") != content
        ):  # keeps Sphinx from reading unchanged pages again
            path.write_text(content, encoding="utf-8")


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each page."""
    yield from command_pages()
    yield "settings.md", settings_page()
    yield "api.md", api_page()
    yield "modules.md", modules_list()
    yield "layers.md", layers_list()
    for kind in ("dataset", "loss", "metric", "backbone"):
        yield f"adding-{kind}.md", adding(kind)


def adding(kind: str) -> str:
    """Return the section of CONTRIBUTING.md about adding a part, or nothing if the file is missing, as in a package."""
    path = ROOT / "CONTRIBUTING.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(rf"^### A {kind}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return f"## The file and the line\n{found[1]}" if found else ""


def command_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each command, and one that lists them."""
    from typer.main import get_command

    from mesm_cli.app import app

    rows, names = [], []
    for words, command in leaves(get_command(app), ()):
        name, page = "-".join(words), f"commands/{'-'.join(words)}.md"
        summary = (command.help or "").strip().partition("\n\n")[0]
        names.append(f"commands/{name}")
        rows.append((f"[`mesm {' '.join(words)}`]({page})", text(summary)))
        yield page, command_page(words, command)
    index = ["# Commands", table(("command", "what it does"), rows), fence("{toctree}", ":hidden:", "", *names)]
    yield "commands.md", "\n\n".join(index) + "\n"


def leaves(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the commands below a group with their names. A group that can be invoked itself is included."""
    children = getattr(command, "commands", None)
    if children is None or (words and getattr(command, "invoke_without_command", False)):
        yield words, command
    for name, child in (children or {}).items():
        if not child.hidden:
            yield from leaves(child, (*words, name))


def command_page(words: tuple[str, ...], command: Any) -> str:
    """Return the page of a command: usage, help, arguments, options by panel."""
    shown = [param for param in command.params if not getattr(param, "hidden", False) and param.name != "help"]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    panels: dict[str, list[Any]] = {}
    for param in shown:
        if param.param_type_name == "option":
            panels.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(param)
    usage = " ".join(["mesm", *words, *(["[OPTIONS]"] if panels else []), *map(argument_name, arguments)])
    parts = [f"# mesm {' '.join(words)}", fence("sh", usage), *paragraphs(command.help or "")]
    if arguments:
        rows = [(f"`{argument_name(param)}`", text(param.help or "")) for param in arguments]
        parts += ["## Arguments", table(("argument", "meaning"), rows)]
    for panel, options in sorted(panels.items(), key=lambda item: item[0] != "Options"):
        rows = [(option_name(option), text(option_help(option))) for option in options]
        parts += [f"## {panel}", table(("option", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def argument_name(param: Any) -> str:
    """Return an argument as shown in the usage line."""
    name = param.metavar or param.name.upper()
    many = "..." if param.nargs == -1 and "..." not in name else ""
    return f"{name}{many}" if param.required else f"[{name}]{many}"


def option_name(param: Any) -> str:
    """Return the names of an option and the kind of its value, as code."""
    spellings = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    return spellings if param.is_flag else f"{spellings} `{value_kind(param)}`"


def value_kind(param: Any) -> str:
    """Return a placeholder for the value of an option: its metavar, its choices, or the name of its type."""
    if param.metavar:
        return str(param.metavar)
    descriptor = getattr(param, "type_descriptor", None)
    if descriptor is None:  # typer before it had descriptors
        return str(param.type.name).upper()
    found = re.findall(r"\w+", str(descriptor.annotation)) if descriptor.annotation not in KINDS else []
    if inspect.isclass(descriptor.annotation) and issubclass(descriptor.annotation, enum.Enum):
        return "|".join(str(choice.value) for choice in descriptor.annotation)
    by_name = {kind.__name__: name for kind, name in KINDS.items()}
    return KINDS.get(descriptor.annotation) or next((by_name[word] for word in found if word in by_name), "TEXT")


def option_help(param: Any) -> str:
    """Return the help of an option with its default and its environment variable."""
    said = [param.help or ""]
    default = param.default.value if isinstance(param.default, enum.Enum) else param.default
    if getattr(param, "show_default", True) and not param.is_flag and default not in (None, (), [], ""):
        said.append(f"Default: {default}.")
    if param.multiple and "repeat" not in said[0]:
        said.append("Repeatable.")
    if param.envvar:
        said.append(f"Environment variable: {param.envvar}.")
    return " ".join(said)


def paragraphs(help_text: str) -> Iterator[str]:
    """Yield a help text as Markdown. Paragraphs from "Examples:" on are code."""
    code: list[str] = []
    examples = False
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(help_text)):
        joined = " ".join(paragraph.split())
        if EXAMPLES.match(joined):
            examples, joined = True, EXAMPLES.sub("", joined, count=1)
        if examples and joined:
            code.append(joined)
        elif not examples and joined:
            yield text(joined)
    if code:
        yield "## Examples"
        yield fence("sh", *code)


def settings_page() -> str:
    """Return the page of all settings, from the schema, and of the changes that each preset makes."""
    from mesm_core.config.load import load_config, preset_names
    from mesm_core.config.schema import Config

    parts = [
        "# Settings",
        "The settings of a run come from the defaults below, the preset of the dataset, a file (`--config`), and "
        "`--set KEY=VALUE`; each overrides the ones before. Unknown keys are refused. "
        "`mesm config show --dataset NAME` prints every value and where it comes from.",
    ]
    defaults: dict[str, Any] = {}
    for section, field in Config.model_fields.items():
        schema = field.annotation
        assert schema is not None
        rows = []
        properties = schema.model_json_schema()["properties"]
        for name, item in schema.model_fields.items():
            key = f"{section}.{name}"
            required = item.is_required()
            if not required:
                defaults[key] = plain(item.get_default(call_default_factory=True))
            shown = "set by the preset" if required else f"default `{value_text(defaults[key])}`"
            meaning = f"{text(item.description or '')} ({setting_kind(properties[name])}; {shown})"
            rows.append((f"`{key}`", meaning.strip()))
        parts += [f"## {section}", text(sentence(schema.__doc__)), table(("key", "meaning"), rows)]
    parts += ["## Presets", "The settings that each preset changes."]
    for preset in preset_names():
        values = flat(load_config(preset).model_dump(mode="json"))
        changed = [f"{key} = {value_text(value)}" for key, value in values.items() if defaults.get(key, ...) != value]
        parts += [f"### {preset}", fence("toml", *changed)]
    return "\n\n".join(parts) + "\n"


def setting_kind(schema: Mapping[str, Any]) -> str:
    """Return a setting's type and bounds in words, from its JSON schema."""
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if schema.get("type") == "array":
        return f"list of {setting_kind(schema.get('items') or {})}"
    kind = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "object": "table"}
    bounds = [f"{sign} {schema[name]:,.10g}" for name, sign in BOUNDS if name in schema and abs(schema[name]) < HUGE]
    return " ".join([kind.get(str(schema.get("type")), "integer or text"), ", ".join(bounds)]).strip()


def api_page() -> str:
    """Return the page of the public names, for autodoc."""
    import mesm_core

    parts = ["# Python API", "The public names of `mesm_core`. Everything else may change between versions."]
    for name in mesm_core.__all__:
        if name.startswith("__"):
            continue
        value = getattr(mesm_core, name)
        kind = "autoclass" if inspect.isclass(value) else "autofunction"
        directive = fence("{eval-rst}", f".. {kind}:: mesm_core.{name}")
        if hasattr(value, "model_fields"):  # its fields have their own page
            directive = f"{sentence(value.__doc__)} [Settings](settings.md) lists the fields."
        parts += [f"## {name}", directive]
    parts += ["## Errors", fence("{eval-rst}", ".. automodule:: mesm_core.errors", "   :exclude-members: MesmError")]
    return "\n\n".join(parts) + "\n"


def modules_list() -> str:
    """Return the packages and their modules with the first line of each docstring."""
    lines = []
    for path in sorted([*ROOT.glob("mesm_cli/**/*.py"), *ROOT.glob("mesm_core/**/*.py")], key=place):
        name = module_name(path)
        summary = sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
        lines.append(f"{'  ' * name.count('.')}- `{name}`: {text(summary)}")
    return "\n".join(lines) + "\n"


def place(path: Path) -> tuple[Any, ...]:
    """Return the sort key of a module: a package before its modules, modules before packages."""
    parts = path.relative_to(ROOT).parts
    return (*((1, part) for part in parts[:-1]), (0, parts[-1] != "__init__.py", parts[-1]))


def layers_list() -> str:
    """Return the layers of the architecture test, the top one first."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    targets = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    layers = ast.literal_eval(targets["LAYERS"])
    lines = []
    for number, layer in enumerate(reversed(layers), start=1):
        names = [layer] if isinstance(layer, str) else sorted(layer)
        lines.append(f"{number}. {', '.join(f'`{name}`' for name in names)}")
    return "\n".join(lines) + "\n"


def module_name(path: Path) -> str:
    """Return the dotted name of a module's file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def sentence(docstring: str | None) -> str:
    """Return the first line of a docstring."""
    return (docstring or "").strip().partition("\n")[0]


def text(words: str) -> str:
    """Return plain text as Markdown, with options and code in backticks and everything else escaped."""
    pieces = re.split(r"(`[^`]+`)", words.replace("``", "`"))
    return "".join(piece if piece.startswith("`") else _escaped(piece) for piece in pieces)


def _escaped(words: str) -> str:
    escaped = re.sub(r"([\\*_<>\[\]|$])", r"\\\1", words)
    return re.sub(r"(?<![\w`-])(--[a-z][a-z0-9-]*)", r"`\1`", escaped)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table. Any | inside of code is escaped."""
    head = list(columns)
    lines = [head, ["---"] * len(head)]
    lines += [[re.sub(r"(?<!\\)\|", r"\\|", cell).replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fence(kind: str, *lines: str) -> str:
    """Return a fenced block."""
    return "\n".join([f"```{kind}", *lines, "```"])


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as a flat dictionary."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def plain(value: Any) -> Any:
    """Return a default value as JSON represents it."""
    return list(value) if isinstance(value, tuple) else value


def value_text(value: Any) -> str:
    """Return a setting's value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
