"""The Jinja2 templates of the pages, loaded from the package; every value is escaped unless it is Markup."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from jinja2 import Environment
    from markupsafe import Markup


@cache
def environment() -> Environment:
    """Return the environment with autoescape; an undefined name in a template raises an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("mesm_core.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> Markup:
    """Return a whole template with values filled in."""
    from markupsafe import Markup

    return Markup(environment().get_template(template).render(**values))


def part(macro: str, *values: object, template: str = "parts.html") -> Markup:
    """Return the result of a macro of a template."""
    made: Markup = getattr(environment().get_template(template).module, macro)(*values)
    return made


def source(name: str) -> Markup:
    """Return a stylesheet or script of the package, unescaped."""
    from markupsafe import Markup

    loader = environment().loader
    assert loader is not None
    return Markup(loader.get_source(environment(), name)[0])
