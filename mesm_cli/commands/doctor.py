"""``mesm doctor``: versions, devices, caches and data of this installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.build.doctor import Found


def doctor(
    data_dir: options.DataDir = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show versions, devices, threads, caches, and the data of each preset, with commands to get missing data.

    Nothing is changed. The exit code is 0 even if data are missing, since nobody needs the data of every preset.
    `mesm prepare check --dataset NAME` checks whether the data of one dataset fit together.

    Example:

      mesm doctor --data-dir data
    """
    from mesm_core.build import doctor as examine
    from mesm_core.extraction.cache import default_cache

    root = options.data_root(data_dir)
    found = examine.found_data(root)
    features = default_cache()
    kept = features.entries()
    about = {
        "versions": examine.installed(),
        "devices": examine.devices(),
        "threads": examine.threads(),
        "text_cache": examine.text_cache(),
        "feature_cache": {"path": str(features.folder), "entries": len(kept), "bytes": sum(item.size for item in kept)},
    }
    if json_:
        render.data(about | {"data_dir": str(root), "data": [vars(item) | {"path": str(item.path)} for item in found]})
        return
    _show_machine(about)
    render.say(f" below {root}{'' if root.is_dir() else ', which does not exist'}", title="\nData")
    for name in dict.fromkeys(item.dataset for item in found):
        render.say(title=f"\n{name}")
        render.findings([_line(item) for item in found if item.dataset == name])


def _show_machine(about: dict[str, Any]) -> None:
    from mesm_core.errors import count

    shown = [f"{name} {number}" for name, number in about["versions"].items() if number]
    absent = [name for name, number in about["versions"].items() if not number]
    render.say(title="Versions")
    render.say("  " + ", ".join(shown))
    if absent:
        render.say(f"  not installed (optional): {', '.join(absent)}")
    render.say(title="\nDevices")
    for device in about["devices"]:
        memory = f", {device['memory'] / 2**30:.1f} GiB" if device["memory"] else ""
        numbers = "fast bf16" if device["bf16"] else "no fast bf16"
        render.say(f"  {device['name']}: {device['problem'] or device['what']}{memory}, {numbers}")
    if len(about["devices"]) == 1:
        render.say("  no CUDA device")
    threads = about["threads"]
    given = [f"{name}={value}" for name, value in threads["environment"].items() if value is not None]
    render.say(title="\nThreads")
    render.say(f"  {threads['torch']} in torch; {threads['usable']} of {threads['cores']} cores usable")
    render.say(f"  environment: {', '.join(given) or 'nothing set'}")
    cache = about["text_cache"]
    render.say(title="\nCache of encoded sentences")
    render.say(f"  {cache['path']}: {cache['bytes'] / 1e6:.1f} MB{_sentences(cache)}")
    kept = about["feature_cache"]
    render.say(title="\nCache of features")
    render.say(f"  {kept['path']}: {kept['bytes'] / 1e6:.1f} MB, {count(kept['entries'], 'file')}")


def _sentences(cache: dict[str, Any]) -> str:
    from mesm_core.errors import count

    if cache["problem"]:
        return f"; {cache['problem']}"
    return ", does not exist yet" if cache["sentences"] is None else f", {count(cache['sentences'], 'sentence')}"


def _line(item: Found) -> tuple[str, str, str]:
    if item.state == "ok":
        return item.state, item.what, f"{item.path}" + (f", {item.detail}" if item.detail else "")
    if item.state == "missing":
        return item.state, item.what, f"{item.detail or f'Nothing at {item.path}'}. To get it: {item.how}"
    return item.state, item.what, f"{item.path} is damaged: {item.detail} To repair it: {item.how}"
