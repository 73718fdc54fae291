"""Downloads the weights that a command needs, after asking once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesm_cli import render

if TYPE_CHECKING:
    from mesm_core.inference.locate import Plan


def fetch_missing(plan: Plan, *, yes: bool) -> None:
    """Download the weights of a plan that are missing after asking once. Refuse to continue without them."""
    missing = plan.missing
    if not missing:
        return
    from mesm_core.backbones import fetching
    from mesm_core.backbones.weights import by_hand, size_of
    from mesm_core.errors import FeatureError

    lines = "\n".join(f"  {w.name}: {w.purpose}, {size_of(w)}, licence {w.licence}" for w in missing)
    if not yes:
        asks = render.can_ask()
        if asks:
            render.note(f"These weights are missing:\n{lines}")
        if not asks or not render.ask("Download them now?"):
            commands = ", ".join(f"`mesm weights pull {w.name}`" for w in missing)
            raise FeatureError(
                f"Weights are missing:\n{lines}",
                hint="\n  ".join([f"Download them with {commands}, or add --yes.", *map(by_hand, missing)]),
            )
    for entry in missing:
        with render.bytes_progress(f"Downloading {entry.name}", entry.size) as advance:
            path = fetching.pull(entry, progress=advance)
        render.note(f"{entry.name}: {path}")
